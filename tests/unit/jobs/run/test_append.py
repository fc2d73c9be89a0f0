"""`--append`: new rows at the end of a manifest become new shards; the old ones are not touched."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs.run import run_folder
from jobs.verification.output import verify
from manifests import commit
from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.planning.plan import Plan, batches_of, plan
from tests.unit import finished_run
from tests.unit.finished_run import ROWS, make_config, write_manifest
from workers.stages.shards import seal, write_part

NIGHT: tuple[dict[str, Any], ...] = tuple(
    {"id": f"night{i}", "task": "text2img", "prompt": f"new {i}", "num_images": 1} for i in range(5)
)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """A finished run whose manifest is a folder."""
    folder = tmp_path / "manifest"
    folder.mkdir()
    write_manifest(folder / "day1.parquet")
    made = make_config(tmp_path).model_copy(update={"manifest": (str(folder),)})
    finished_run.run(made)
    return made


def add(config: RunConfig, name: str, rows: Sequence[dict[str, Any]] = NIGHT) -> None:
    write_manifest(Path(config.manifest[0]) / name, rows)


def begin(config: RunConfig, append: bool = True) -> Plan:
    """Plan and begin as a start does."""
    asked = config.model_copy(update={"append": append})
    planned = plan(asked, run_folder.ends_of(asked))
    run_folder.begin(asked, planned)
    return planned


def finish(config: RunConfig, planned: Plan) -> None:
    """Make what is missing."""
    sealed = commit.sealed_shards(config.output)
    for batch in batches_of(config, planned.windows):
        if batch.shard not in sealed:
            write_part(finished_run.made(batch, config), config.output)
    for number, shard in enumerate(planned.shards):
        if number not in sealed:
            seal(number, shard.batches, config.output, config)
    run_folder.finish(config, {}, anew=True)


def shard_files(config: RunConfig) -> dict[str, tuple[bytes, int]]:
    files = (p for p in Path(config.output).iterdir() if p.name[0].isdigit())
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


def test_new_rows_make_new_shards_and_old_files_stay_as_they_are(config: RunConfig) -> None:
    before = shard_files(config)
    for night in ("day2", "day3"):
        add(config, f"{night}.parquet", [{**row, "id": f"{night}-{row['id']}"} for row in NIGHT])
        planned = begin(config)
        assert not (Path(config.output) / "_SUCCESS").exists()
        finish(config, planned)
        after = shard_files(config)
        assert before.items() < after.items()
        before = after
        assert verify(config).findings == []
    assert verify(config).requests == len(ROWS) + 10


def test_rows_appended_to_the_same_file_are_appended_too(config: RunConfig) -> None:
    before = shard_files(config)
    add(config, "day1.parquet", [*ROWS, *NIGHT])
    finish(config, begin(config))
    assert before.items() < shard_files(config).items()
    assert verify(config).findings == []


def test_an_appended_run_resumes_with_and_without_the_option(config: RunConfig) -> None:
    add(config, "day2.parquet")
    planned = begin(config)
    for append in (False, True):
        assert begin(config, append).fingerprint == planned.fingerprint
    record = json.loads((Path(config.output) / "_run" / "plan.json").read_text())
    assert (record["requests"], record["ends"]) == (len(ROWS) + 5, [len(ROWS)])


def test_without_the_option_new_rows_are_refused_with_its_name(config: RunConfig) -> None:
    add(config, "day2.parquet")
    with pytest.raises(UsageError, match=r"other content.*--append"):
        begin(config, append=False)


def test_nothing_new_is_nothing_to_do(config: RunConfig) -> None:
    assert begin(config).requests == len(ROWS)
    assert (Path(config.output) / "_SUCCESS").exists()
    assert begin(config, append=False).ends == ()


@pytest.mark.parametrize("changed", ["other prompt", "row gone", "before", "new column"])
def test_old_rows_must_be_as_they_were(config: RunConfig, changed: str) -> None:
    add(config, "day2.parquet")
    if changed == "other prompt":
        add(config, "day1.parquet", [{**ROWS[0], "prompt": "another"}, *ROWS[1:]])
    elif changed == "row gone":
        add(config, "day1.parquet", ROWS[1:])
    elif changed == "before":
        add(config, "day0.parquet", [{**NIGHT[0], "id": "first"}])
    else:
        add(config, "day2.parquet", [{**row, "id": "x", "mood": "odd"} for row in NIGHT[:1]])
    with pytest.raises(UsageError, match="the first 8 rows of the manifest are not those"):
        begin(config)


def test_fewer_rows_and_other_settings_are_told_as_such(config: RunConfig) -> None:
    add(config, "day2.parquet")
    with pytest.raises(UsageError, match="--seed was 0 and is 3"):
        begin(config.model_copy(update={"seed": 3}))
    add(config, "day1.parquet", ROWS[:2])
    add(config, "day2.parquet", NIGHT[:1])
    with pytest.raises(UsageError, match=r"has 3 rows, and .* was made of 8; none may go"):
        begin(config)


def test_an_id_of_an_old_row_is_taken(config: RunConfig) -> None:
    add(config, "day2.parquet", [{**NIGHT[0], "id": "r0"}, NIGHT[1]])
    planned = begin(config)
    finish(config, planned)
    assert planned.rejected == 2
    assert verify(config).findings == []
