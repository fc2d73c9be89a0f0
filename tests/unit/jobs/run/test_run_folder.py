"""An output belongs to one plan: what is written at the start, and what is refused with which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.run import run_folder
from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.planning.plan import plan


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig(manifest=(write(tmp_path / "m.parquet", "a cat", "a dog"),), output=str(tmp_path / "out"))


def write(path: Path, *prompts: str) -> str:
    pq.write_table(pa.table({"task": ["text2img"] * len(prompts), "prompt": list(prompts)}), path)
    return str(path)


def begin(config: RunConfig, **changes: Any) -> None:
    changed = config.model_copy(update=changes)
    run_folder.begin(changed, plan(changed))


def test_config_and_plan_are_written_at_the_start(config: RunConfig) -> None:
    begin(config)
    folder = Path(config.output) / "_run"
    assert json.loads((folder / "config.json").read_text()) == config.model_dump(mode="json")
    written = json.loads((folder / "plan.json").read_text())
    assert (written["requests"], written["images"], written["shards"]) == (2, 2, 1)
    assert len(written["fingerprint"]) == 64
    # Tools that read such outputs take every *.json of the root for a shard's statistics.
    assert list(Path(config.output).glob("*.json")) == []


def test_the_same_plan_may_start_again_with_other_pools(config: RunConfig) -> None:
    begin(config)
    begin(config, decoder_actors="3", device="cpu")
    assert json.loads((Path(config.output) / "_run" / "config.json").read_text())["decoder_actors"] == "3"


def test_a_changed_setting_is_refused_by_name_with_both_values(config: RunConfig) -> None:
    begin(config)
    with pytest.raises(UsageError, match="--steps was None and is 7; --batch-size was 4 and is 8") as caught:
        begin(config, batch_size=8, steps=7, decoder_actors="3")
    assert "decoder-actors" not in str(caught.value)
    assert "Use another --output" in str(caught.value)


def test_graphs_and_operators_do_not_share_an_output(config: RunConfig) -> None:
    begin(config)
    with pytest.raises(UsageError, match="--graph was 'auto' and is 'on'"):
        begin(config, graph="on")


def test_an_output_that_was_begun_with_graphs_goes_on_with_them(config: RunConfig) -> None:
    assert run_folder.as_begun(config).graph == "auto"
    begin(config, graph="on")
    assert run_folder.as_begun(config).graph == "on"
    for asked, graph in (("off", "off"), ("on", "on"), ("auto", "on")):
        assert run_folder.as_begun(config.model_copy(update={"graph": asked})).graph == graph


def test_an_output_of_a_version_without_auto_goes_on_as_it_was_begun(config: RunConfig) -> None:
    begin(config)
    record = Path(config.output) / "_run" / "plan.json"
    for before, now in ((True, "on"), (False, "off")):
        written = json.loads(record.read_text())
        written["settings"]["graph"] = before
        record.write_text(json.dumps(written))
        assert run_folder.as_begun(config).graph == now


def test_a_changed_manifest_is_refused_with_its_counts(config: RunConfig, tmp_path: Path) -> None:
    begin(config)
    write(tmp_path / "m.parquet", "a cat", "a dog", "an owl")
    with pytest.raises(UsageError, match=r"it had 2 requests, 2 images; now 3 requests, 3 images"):
        begin(config)
    write(tmp_path / "m.parquet", "a cat", "a hen")
    with pytest.raises(UsageError, match="the manifest has other content"):
        begin(config)


def test_the_same_manifest_in_another_place_goes_on(config: RunConfig, tmp_path: Path) -> None:
    begin(config)
    begin(config, manifest=(write(tmp_path / "moved.parquet", "a cat", "a dog"),))


def test_shards_of_somebody_else_are_not_gone_on_with(config: RunConfig) -> None:
    output = Path(config.output)
    output.mkdir()
    (output / "00000_stats.json").write_text("{}")
    with pytest.raises(UsageError, match="holds shards but no _run"):
        begin(config)


def test_a_start_that_made_nothing_leaves_the_report_alone(config: RunConfig) -> None:
    run_folder.finish(config, {"made": 2}, anew=True)
    run_folder.finish(config, {"made": 0}, anew=False)
    assert json.loads((Path(config.output) / "_run" / "run.json").read_text()) == {"made": 2}
    assert (Path(config.output) / "_SUCCESS").exists()


def test_the_marker_is_the_work_of_whoever_finishes_last(config: RunConfig) -> None:
    one = config.model_copy(update={"shards": "2/3"})
    run_folder.finish(one, {"made": 2}, anew=True, whole=False)
    assert not (Path(config.output) / "_SUCCESS").exists()
    assert (Path(config.output) / "_run" / "run-00001-of-00003.json").exists()
    run_folder.finish(one, {"made": 2}, anew=True, whole=True)
    assert (Path(config.output) / "_SUCCESS").exists()


def begun_by_an_earlier_version(config: RunConfig) -> None:
    """There was no setting for marks then."""
    begin(config, mark=False)
    for name in ("config.json", "plan.json"):
        path = Path(config.output) / "_run" / name
        content = json.loads(path.read_text())
        del (content["settings"] if name == "plan.json" else content)["mark"]
        path.write_text(json.dumps(content))


def test_an_output_begun_before_there_were_marks_goes_on_without(config: RunConfig) -> None:
    begun_by_an_earlier_version(config)
    assert run_folder.settings(config.output).mark is False
    going_on = run_folder.as_begun(config)
    assert going_on.mark is False
    begin(going_on)
    assert run_folder.as_begun(config).mark is False


def test_marks_asked_for_in_such_an_output_are_refused_by_name(config: RunConfig) -> None:
    begun_by_an_earlier_version(config)
    asking = run_folder.as_begun(config.model_copy(update={"mark": True}))
    with pytest.raises(UsageError, match="was begun with something else: --mark was False and is True"):
        begin(asking)


def test_rows_appended_to_such_an_output_are_made_without_marks_too(config: RunConfig) -> None:
    begun_by_an_earlier_version(config)
    write(Path(config.manifest[0]), "a cat", "a dog", "a fox")
    going_on = run_folder.as_begun(config.model_copy(update={"append": True}))
    planned = plan(going_on, run_folder.ends_of(going_on))
    run_folder.begin(going_on, planned)
    assert json.loads((Path(config.output) / "_run" / "plan.json").read_text())["settings"]["mark"] is False


def test_a_new_output_has_marks_and_one_begun_without_stays_so(config: RunConfig) -> None:
    assert run_folder.as_begun(config).mark is True
    begin(config, mark=False)
    assert run_folder.as_begun(config).mark is False
    with pytest.raises(UsageError, match="--mark was False and is True"):
        begin(config, mark=True)
