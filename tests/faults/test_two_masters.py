"""A job that is stopped, loses its lease and wakes up: it changes nothing any more, on disk and on an object store."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.verification.output import verify
from manifests import storage
from manifests.config import RunConfig
from manifests.embeddings import kept_clip
from tests.faults.simulation.engine import generate
from tests.faults.simulation.power import ROWS, config_for
from tests.faults.simulation.sleeper import LOST, asleep, wake
from tests.s3_server import S3Server
from tests.unit.finished_run import write_manifest

pytestmark = pytest.mark.faults

#: Changes of files that the job makes: run files, parts, shards with their embeddings and stats, and removals.
CHANGES = 21

#: Of these, the ones that put a shard's tar, index, stats and embeddings in place; in the first shard and the second a
#: row fails.
SHARD_FILES = (9, 10, 11, 14, 15)


def files(output: str) -> dict[str, bytes]:
    names = [name for name in storage.list_names(output) if name[0].isdigit() or name == "_SUCCESS"]
    for folder in (f"{kept_clip.FOLDER}/img_emb", f"{kept_clip.FOLDER}/metadata"):
        names += [f"{folder}/{name}" for name in storage.list_names(storage.join(output, folder))]
    return {name: storage.read_bytes(storage.join(output, name)) for name in names}


def config_at(output: str, folder: Path) -> RunConfig:
    config = config_for(folder, Path(write_manifest(folder / "m.parquet", ROWS)))
    return config.model_copy(update={"output": output, "retry_errors": True})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the job makes where no row fails."""
    folder = tmp_path_factory.mktemp("whole")
    config = config_at(str(folder / "out"), folder)
    generate(config)
    return files(config.output)


def stop_and_overtake(
    config: RunConfig, stop_at: int, whole: dict[str, bytes], environment: dict[str, str] | None = None, **how: bool
) -> int | None:
    """Stop a job in which rows fail, let another one make all of them, then let the first go on; how that one ended."""
    process = asleep(config, stop_at, environment or {}, **how)
    assert process is not None
    try:
        generate(config)
        assert files(config.output) == whole
    finally:
        ended = wake(process)
    return ended


def harm(config: RunConfig, whole: dict[str, bytes]) -> set[str]:
    """Files that are not as they were, and what verification finds."""
    found = files(config.output)
    changed = {name for name in {*found, *whole} if found.get(name) != whole.get(name)}
    return changed | {finding.check for finding in verify(config).findings}


@pytest.mark.parametrize("stop_at", range(2, CHANGES + 1, 2))
def test_a_job_that_wakes_up_after_its_lease_was_taken_does_no_harm(
    tmp_path: Path, whole: dict[str, bytes], stop_at: int
) -> None:
    config = config_at(str(tmp_path / "out"), tmp_path)
    assert stop_and_overtake(config, stop_at, whole) == LOST
    assert harm(config, whole) == set()


@pytest.mark.parametrize("stop_at", SHARD_FILES)
def test_nor_does_one_that_slept_between_its_question_and_its_deed(
    tmp_path: Path, whole: dict[str, bytes], stop_at: int
) -> None:
    config = config_at(str(tmp_path / "out"), tmp_path)
    assert stop_and_overtake(config, stop_at, whole, late=True) == LOST
    assert harm(config, whole) == set()


def test_one_that_would_not_ask_would_be_found(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "sweep", lambda *given, **more: 0)
    config = config_at(str(tmp_path / "out"), tmp_path)
    stop_and_overtake(config, SHARD_FILES[0], whole, fenced=False)
    assert harm(config, whole) >= {"00001.tar"}


def test_there_are_no_other_changes(tmp_path: Path) -> None:
    assert asleep(config_at(str(tmp_path / "out"), tmp_path), CHANGES + 1, {}) is None


@pytest.mark.parametrize("stop_at", [9, 15])
def test_nor_does_it_on_an_object_store(tmp_path: Path, s3: S3Server, whole: dict[str, bytes], stop_at: int) -> None:
    config = config_at("s3://bucket/out", tmp_path)
    assert stop_and_overtake(config, stop_at, whole, s3.environment) == LOST
    assert harm(config, whole) == set()
