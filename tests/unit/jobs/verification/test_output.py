"""A right output is found right, and what it lacks, or has too much, is named."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest

from jobs.run import run_folder
from jobs.verification.output import verify
from manifests.commit import describe_file, read_stats, staged_parts, write_stats
from manifests.config import RunConfig
from manifests.embeddings import kept_clip
from manifests.errors import UsageError
from manifests.planning.plan import batches_of, plan
from tests.unit import finished_run
from tests.unit.jobs.verification.damage import found, words
from workers.stages.shards import write_part


def test_a_finished_run_is_right_with_requests_and_images_counted(config: RunConfig) -> None:
    verdict = verify(config)
    assert verdict.findings == []
    assert (verdict.requests, verdict.whole, verdict.failed) == (8, 7, 1)
    assert (verdict.images_written, verdict.images_failed, verdict.shards) == (10, 1, 3)
    assert "8 requests, 7 written + 1 failed" in words(config)
    assert "all of it is right" in words(config)


def test_missing_files_are_named(config: RunConfig) -> None:
    output = Path(config.output)
    (output / "00001_stats.json").unlink()
    told = words(config)
    assert "shard 00001: is planned, but has no stats file" in told
    assert "requests are in no index" in told
    assert "_SUCCESS: is there although the output is not right" in told
    for path in output.glob("00001*"):
        path.unlink()
    (output / "00000.tar").unlink()
    (output / "00002.parquet").unlink()
    assert {("tar", "00000.tar"), ("index", "00002.parquet"), ("shards", "shard 00001")} <= found(config)


def test_a_part_of_the_output_is_read_by_itself(config: RunConfig) -> None:
    (Path(config.output) / "00001.tar").unlink()
    verdicts = [verify(config, (number, 2)) for number in range(2)]
    assert [verdict.damaged for verdict in verdicts] == [[], [1]]
    assert [verdict.shards for verdict in verdicts] == [2, 1]
    assert verdicts[0].right, "the requests of the others are none of it"
    assert sum(verdict.images_written for verdict in verdicts) == 10
    assert verify(config, only=[0, 1]).damaged == [1]
    assert verify(config, (0, 2), only=[1]).shards == 0


def test_wrong_counts_in_the_stats_are_found(config: RunConfig) -> None:
    path = Path(config.output) / "00000_stats.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "failed": 3, "bytes": 1}))
    assert {("stats", "shard 00000"), ("stats", "00000.tar")} <= found(config)
    path.write_text("{")
    assert ("stats", "shard 00000") in found(config)


def test_embeddings_are_held_to_the_stats_and_to_the_images(tmp_path: Path) -> None:
    config = finished_run.make_config(tmp_path, keep_clip=True)
    finished_run.run(config)
    assert verify(config).right
    vectors, metadata = (Path(config.output, name) for name in kept_clip.names(0))
    right = vectors.read_bytes(), metadata.read_bytes()
    vectors.write_bytes(right[0][:-2])
    assert ("stats", kept_clip.names(0)[0]) in found(config)
    vectors.unlink()
    assert found(config) == {("embeddings", kept_clip.names(0)[0]), ("_SUCCESS", "_SUCCESS")}
    # The other shard's files under this one's name, with a record to match.
    for path, name in zip((vectors, metadata), kept_clip.names(1), strict=True):
        path.write_bytes(Path(config.output, name).read_bytes())
    stats = read_stats(config.output, 0)
    files = tuple(describe_file(str(Path(config.output, file.name)), file.name) for file in stats.clip or ())
    write_stats(config.output, stats.model_copy(update={"clip": files}))
    assert found(config) == {("embeddings", kept_clip.names(0)[0]), ("_SUCCESS", "_SUCCESS")}
    assert "is not of the image in the index" in words(config)
    for path, data in zip((vectors, metadata), right, strict=True):
        path.write_bytes(data)
    write_stats(config.output, stats)
    (vectors.parent / "img_emb_00007.npy").write_bytes(b"")
    assert found(config) == {("embeddings", "_run/clip/img_emb/img_emb_00007.npy")}


def test_a_shard_without_the_embeddings_that_the_output_keeps_is_named(tmp_path: Path) -> None:
    config = finished_run.make_config(tmp_path)
    finished_run.run(config)
    run_folder.set_scores(config.model_copy(update={"keep_clip": True}))
    assert found(config) == {("embeddings", f"shard {shard:05d}") for shard in range(3)} | {("_SUCCESS", "_SUCCESS")}


def test_leftovers_and_a_missing_marker_are_found(config: RunConfig) -> None:
    batch = next(iter(batches_of(config, plan(config).windows)))
    write_part(finished_run.made(batch, config), config.output)
    assert staged_parts(config.output)
    (Path(config.output) / "_SUCCESS").unlink()
    (Path(config.output) / "00007.tar").write_bytes(b"")
    assert found(config) == {
        ("left over", "_run/parts/00000"),
        ("_SUCCESS", "_SUCCESS"),
        ("shards", "00007.tar"),
    }


def test_another_manifest_is_told_first(config: RunConfig, tmp_path: Path) -> None:
    other = finished_run.write_manifest(tmp_path / "other.parquet", finished_run.ROWS[:-1])
    verdict = verify(config.model_copy(update={"manifest": (other,)}))
    assert verdict.findings[0].check == "manifest"
    assert not verdict.right


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    config = finished_run.make_config(tmp_path)
    with pytest.raises(UsageError, match="no run was begun there"):
        verify(config)


def test_object_storage_is_verified_alike(tmp_path: Path) -> None:
    config = finished_run.make_config(tmp_path, output="memory://verify/out")
    finished_run.run(config)
    assert verify(config).right
    fs = fsspec.filesystem("memory")
    fs.rm("/verify/out/00001.tar")
    assert ("tar", "00001.tar") in found(config)
