"""Whose an output is: nothing of anybody else is replaced, and whatever a run of ours began can be gone on with."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import fsspec
import pytest

from jobs.leases.lease import Lease
from jobs.run import run_folder
from manifests.config import RunConfig
from manifests.embeddings.store import EmbeddingStore
from manifests.errors import UsageError
from manifests.planning.plan import plan
from tests.unit import finished_run
from tests.unit.finished_run import make_config, write_manifest
from tests.unit.manifests.embedding_rows import rows


def begin(config: RunConfig, **changes: Any) -> None:
    changed = config.model_copy(update=changes)
    run_folder.begin(changed, plan(changed))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["00000.parquet", "00001.tar", "notes.txt", "part-0.parquet", "sub/deep.txt"])
def test_a_folder_with_somebody_elses_files_is_left_as_it_is(tmp_path: Path, name: str) -> None:
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"precious")
    before = contents(tmp_path / "out")
    with pytest.raises(UsageError, match=name.split("/")[0]):
        begin(make_config(tmp_path))
    assert contents(tmp_path / "out") == before


def test_a_run_begins_beside_others_where_the_person_says_so_and_goes_on_there(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    config = make_config(tmp_path, into_existing=True)
    finished_run.run(config)
    begin(config, into_existing=False)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_a_planned_name_that_is_taken_is_refused_even_then(tmp_path: Path) -> None:
    taken = tmp_path / "out" / "00001.tar"
    taken.parent.mkdir()
    taken.write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"holds 00001.tar, written by no run of this program"):
        begin(make_config(tmp_path, into_existing=True))
    # A number that no shard will have is in nobody's way.
    taken.rename(taken.with_name("00999.tar"))
    begin(make_config(tmp_path, into_existing=True))


@pytest.mark.parametrize("spelled", ["out", "link"])
@pytest.mark.parametrize("owned", [False, True])
def test_a_manifest_is_never_replaced_by_the_shards_made_of_it(tmp_path: Path, spelled: str, owned: bool) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    config = make_config(tmp_path)
    if owned:
        begin(config)
    manifest = write_manifest(tmp_path / "out" / "00000.parquet")
    before = contents(tmp_path / "out")
    with pytest.raises(UsageError, match=r"00000.parquet (is the manifest|, written by no run)|holds 00000.parquet"):
        begin(config, manifest=(manifest,), output=str(tmp_path / spelled))
    assert contents(tmp_path / "out") == before


def test_a_manifest_of_another_name_may_lie_in_the_output(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    manifest = write_manifest(tmp_path / "out" / "requests.parquet")
    begin(make_config(tmp_path), manifest=(manifest,), into_existing=True)


@pytest.mark.parametrize("litter", [[], [".DS_Store"], ["lost+found"], [".ipynb_checkpoints", "Thumbs.db"]])
def test_an_empty_folder_is_nobodys_whatever_systems_leave_in_it(tmp_path: Path, litter: list[str]) -> None:
    (tmp_path / "out").mkdir()
    for name in litter:
        (tmp_path / "out" / name).touch()
    begin(make_config(tmp_path))


def test_a_start_that_died_before_its_plan_was_written_locks_nobody_out(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    with Lease(config.output, config.share, lambda words: None):
        pass
    (tmp_path / "out" / "_run" / "leases" / ".x.tmp").touch()
    begin(config)
    (tmp_path / "out" / "_run" / "plan.json").unlink()  # as if killed between config.json and plan.json
    begin(config)


def test_what_a_run_of_ours_began_is_gone_on_with_at_any_state(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    finished_run.run(config)
    begin(config)
    for name in ("00000_stats.json", "00001.tar", "_SUCCESS"):
        (tmp_path / "out" / name).unlink()
        begin(config)
    shutil.move(tmp_path / "out", tmp_path / "moved")
    begin(config, output=str(tmp_path / "moved"))


def test_every_share_of_one_output_may_begin_it(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    for share in ("1/3", "2/3", "3/3"):
        begin(config, shards=share)


def test_another_programs_plan_is_told_from_ours(tmp_path: Path) -> None:
    (tmp_path / "out" / "_run").mkdir(parents=True)
    (tmp_path / "out" / "_run" / "plan.json").write_text('{"steps": []}')
    for append in (False, True):
        with pytest.raises(UsageError, match=r"plan.json is not of this program"):
            begin(make_config(tmp_path), append=append)


def test_object_stores_have_owners_too(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    config = make_config(tmp_path, output="memory://owned/out")
    fs.pipe_file("/owned/out/data.csv", b"precious")
    with pytest.raises(UsageError, match=r"it holds data.csv"):
        begin(config)
    fs.rm("/owned", recursive=True)
    begin(config)
    begin(config)
    fs.rm("/owned", recursive=True)


def test_an_embedding_store_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    foreign, empty, ours = (tmp_path / name for name in ("foreign", "empty", "ours"))
    (foreign / "parts").mkdir(parents=True)
    (foreign / "parts" / "part-0.parquet").write_bytes(b"precious")
    empty.mkdir()
    EmbeddingStore(str(ours)).add(rows(range(3)))
    (ours / "README.md").touch()
    for store in (empty, ours, tmp_path / "absent"):
        begin(config, embeddings=str(store))
    with pytest.raises(UsageError, match=r"it holds parts/part-0.parquet"):
        begin(config, embeddings=str(foreign))
    begin(config, embeddings=str(foreign), into_existing=True)
