"""Sealing anew: rows tried again take the place of failed ones, and a kill at any step loses nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from jobs.run.retry_errors import failed_rows
from jobs.verification.output import verify
from manifests import storage
from manifests.commit import read_stats, sealed_shards
from manifests.config import RunConfig
from manifests.embeddings import kept_clip
from manifests.errors import StorageError
from manifests.planning.plan import batches_of, plan
from tests.unit import finished_run
from workers.stages.reseal import RESEAL_FOLDER, RETRY_FOLDER, finish_reseals, reseal
from workers.stages.shards import write_part

BROKEN = ("r1", "r2", "r5")


def shard_files(output: str) -> dict[str, bytes]:
    files = [*Path(output).iterdir(), *Path(output, kept_clip.FOLDER).rglob("*_*.*")]
    return {p.name: p.read_bytes() for p in sorted(files) if p.is_file() and p.name != "_SUCCESS"}


def kept(latents: bool) -> dict[str, Any]:
    """Settings of a run that keeps all it can, or nothing."""
    return {"dump_latents": latents, "scores": "all" if latents else "none", "keep_clip": latents}


@pytest.fixture(params=[False, True], ids=["images", "images, latents, scores and embeddings"])
def latents(request: pytest.FixtureRequest) -> bool:
    """Whether the shards keep latents, scores and embeddings."""
    return bool(request.param)


@pytest.fixture
def whole(tmp_path: Path, latents: bool) -> dict[str, bytes]:
    """The shards as they are where nothing fails."""
    folder = tmp_path / "whole"
    folder.mkdir()
    config = finished_run.make_config(folder, **kept(latents))
    finished_run.run(config)
    return shard_files(config.output)


@pytest.fixture
def config(tmp_path: Path, latents: bool) -> RunConfig:
    """A run that some rows failed in."""
    made = finished_run.make_config(tmp_path, **kept(latents))
    finished_run.run(made, BROKEN)
    return made


def try_again(config: RunConfig, broken: tuple[str, ...] = ()) -> dict[int, list[int]]:
    """What the line does between: make the failed rows and stage them aside."""
    planned = plan(config)
    failed = failed_rows(config, planned, sealed_shards(config.output))
    for window, rows in failed.by_window(planned.windows):
        for batch in batches_of(config, [window], rows):
            write_part(finished_run.made(rows.narrow(batch), config, broken), f"{config.output}/{RETRY_FOLDER}")
    return failed.shards


def test_rows_that_succeed_this_time_make_the_output_as_if_nothing_had_failed(
    config: RunConfig, whole: dict[str, bytes]
) -> None:
    shards = try_again(config)
    assert shards.keys() == {0, 1, 2}
    for shard, batches in shards.items():
        reseal(shard, batches, config.output, config)
    assert shard_files(config.output) == whole
    assert verify(config).findings == []
    assert not storage.list_names(f"{config.output}/{RESEAL_FOLDER}")


def test_only_failed_rows_are_tried_and_validation_is_final(config: RunConfig) -> None:
    planned = plan(config)
    failed = failed_rows(config, planned, sealed_shards(config.output))
    ids = [
        name
        for batch in batches_of(config, planned.windows, failed)
        for name in failed.narrow(batch).samples.column("id").to_pylist()
    ]
    # r1 and r5 have two images each.
    assert sorted(ids) == ["r1", "r1", "r2", "r5", "r5"]
    assert failed.count == 5


def test_rows_that_fail_again_stay_failed(config: RunConfig) -> None:
    for shard, batches in try_again(config, BROKEN[:1]).items():
        reseal(shard, batches, config.output, config)
    assert verify(config).findings == []
    failed = [read_stats(config.output, shard).failed_by_status.get("failed_to_generate", 0) for shard in range(3)]
    assert sum(failed) == 2


class Killed(BaseException):
    """As a kill: no handler sees it."""


@pytest.mark.parametrize("step", range(14))
def test_a_kill_at_any_step_leaves_the_old_shard_or_is_finished_later(
    config: RunConfig, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    before = shard_files(config.output)
    batches = try_again(config)[0]
    calls = 0

    def dying(real: Any) -> Any:
        def function(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == step + 1:
                raise Killed
            return real(*args, **kwargs)

        return function

    with monkeypatch.context() as patch:
        for module, name in ((os, "replace"), (storage, "remove")):
            patch.setattr(module, name, dying(getattr(module, name)))
        try:
            reseal(0, batches, config.output, config)
        except Killed:
            # A shard that counts as sealed is whole: the old one or the new one.
            if 0 in sealed_shards(config.output):
                mine = {name: data for name, data in shard_files(config.output).items() if "00000" in name}
                assert any(mine.items() <= files.items() for files in (before, whole))
        else:
            assert step >= 9
    finish_reseals(config.output, range(3))
    files = shard_files(config.output)
    assert {n: d for n, d in files.items() if "00000" in n}.items() <= (
        whole.items() if files != before else before.items()
    )
    assert 0 in sealed_shards(config.output)


def test_a_damaged_shard_is_not_sealed_anew(config: RunConfig) -> None:
    batches = try_again(config)[1]
    tar = Path(config.output) / "00001.tar"
    tar.write_bytes(tar.read_bytes()[:512])
    with pytest.raises(StorageError, match=r"cannot be read.*verify"):
        reseal(1, batches, config.output, config)
    assert 1 in sealed_shards(config.output)


def test_reseals_of_other_shards_are_left_alone(config: RunConfig) -> None:
    for shard, batches in try_again(config).items():
        stats = read_stats(config.output, shard)
        storage.write_atomic(f"{config.output}/{RESEAL_FOLDER}/{shard:05d}/x", b"")
        assert batches
        assert stats.failed
    assert finish_reseals(config.output, [0]) == 0
    assert storage.list_names(f"{config.output}/{RESEAL_FOLDER}") == ["00001", "00002"]
