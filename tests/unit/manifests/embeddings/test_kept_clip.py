"""Embeddings that are kept lie in clip-retrieval's layout, and come back as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from manifests.embeddings import kept_clip
from manifests.embeddings.clip_retrieval import read_folder
from manifests.errors import StorageError


def records(first: int, statuses: list[str]) -> pa.Table:
    rows = range(first, first + len(statuses))
    return pa.table(
        {
            "status": statuses,
            "caption": [f"caption {i}" for i in rows],
            "key": [f"{i:05d}" for i in rows],
            "id": [f"r{i}" for i in rows],
            "image_index": pa.array([0 for _ in rows], pa.int32()),
            "task": ["text2img" for _ in rows],
            "sha256": [f"{i:064x}" for i in rows],
        }
    )


def column(*rows: list[float] | None) -> pa.ChunkedArray:
    return pa.chunked_array(
        [pa.array([None if row is None else np.float16(row) for row in rows], pa.list_(pa.float16(), 2))]
    )


def build(folder: Path, shard: int = 3) -> kept_clip.ClipFiles:
    """In the folder's own `_run/clip`, so that it lies where a run puts it."""
    local = folder / "local"
    local.mkdir()
    return kept_clip.ClipFiles(shard, str(local), "webp")


def put(folder: Path, files: tuple[kept_clip.FileStats, ...]) -> None:
    for file in files:
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder / "local" / target.name).rename(target)
        assert target.stat().st_size == file.bytes


def test_readers_of_the_layout_find_images_that_have_one_in_the_index_order(tmp_path: Path) -> None:
    building = build(tmp_path)
    building.add(records(0, ["success", "success", "failed_to_encode"]), column([1, 0], None, [0, 1]))
    building.add(records(3, ["failed_to_load"]), None)
    building.add(records(4, ["success"]), column([0.6, 0.8]))
    put(tmp_path, building.close())
    assert not list((tmp_path / "local").iterdir())
    ((metadata, matrix, negatives),) = read_folder(str(tmp_path / kept_clip.FOLDER))
    assert negatives is None
    assert matrix.dtype == np.float16
    assert matrix.tolist() == np.float16([[1, 0], [0.6, 0.8]]).tolist()
    assert metadata["image_path"].to_pylist() == ["00000.webp", "00004.webp"]
    assert metadata["caption"].to_pylist() == ["caption 0", "caption 4"]
    kept = kept_clip.Kept(str(tmp_path), 3).of(["00004", "00001", "00000"])
    assert kept.type == pa.list_(pa.float16(), 2)
    assert kept.to_pylist() == column([0.6, 0.8], None, [1, 0]).to_pylist()


def test_a_shard_without_any_has_no_files(tmp_path: Path) -> None:
    building = build(tmp_path)
    building.add(records(0, ["success"]), column(None))
    assert building.close() == ()
    assert not list((tmp_path / "local").iterdir())


@pytest.mark.parametrize("group", [2, 10_000])
def test_the_same_rows_make_the_same_bytes_in_whatever_pieces_they_come(
    tmp_path: Path, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_clip, "_GROUP_ROWS", group)
    made = []
    for pieces in ([5], [1, 3, 1], [2, 2, 1]):
        folder = tmp_path / str(len(made))
        folder.mkdir()
        building, first = build(folder), 0
        for count in pieces:
            building.add(records(first, ["success"] * count), column(*[[1.0, 0.0]] * count))
            first += count
        made.append(building.close())
    assert made[0] == made[1] == made[2]
    assert len(made[0]) == 2


def test_files_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    building = build(tmp_path)
    building.add(records(0, ["success"] * 2), column([1, 0], [0, 1]))
    put(tmp_path, building.close())
    vectors = tmp_path / kept_clip.names(3)[0]
    np.save(vectors, np.zeros((3, 2), np.float16))
    with pytest.raises(StorageError, match=r"float16 \(3, 2\), and its metadata 2 rows"):
        kept_clip.read(str(tmp_path), 3)
    vectors.write_bytes(b"x")
    with pytest.raises(StorageError, match="cannot be read"):
        kept_clip.read(str(tmp_path), 3)
    vectors.unlink()
    with pytest.raises(StorageError, match="is gone"):
        kept_clip.Kept(str(tmp_path), 3)


def test_what_has_no_direction_or_is_no_number_has_no_vector() -> None:
    assert kept_clip.unit(None) is None
    assert kept_clip.unit(np.zeros(3)) is None
    assert kept_clip.unit(np.array([1.0, np.nan])) is None
    found = kept_clip.unit(np.array([3e4, 4e4], np.float32))
    assert found is not None
    assert found.tolist() == np.float16([0.6, 0.8]).tolist()
    assert kept_clip.column_of({0: None}, 2) is None
