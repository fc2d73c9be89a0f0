"""Sources: which files a manifest is, in which types, and how its rows are cut into windows."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import storage
from manifests.errors import ManifestError
from manifests.requests import files, reading


def write(path: Path, columns: dict[str, Any], row_group_size: int | None = None) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return str(path)


def test_files_globs_and_folders_are_expanded_sorted_and_counted_once(tmp_path: Path) -> None:
    paths = [write(tmp_path / "in" / f"{name}.parquet", {"prompt": ["x"]}) for name in ("c", "a", "b")]
    write(tmp_path / "in" / "_run" / "hidden.parquet", {"prompt": ["x"]})
    write(tmp_path / "in" / ".hidden.parquet", {"prompt": ["x"]})
    (tmp_path / "in" / "notes.txt").write_text("not a manifest")
    folder = files.open_manifest([str(tmp_path / "in")])
    assert [file.url for file in folder.files] == sorted(paths)
    globbed = files.open_manifest([str(tmp_path / "in" / "[ab].parquet"), paths[0], paths[1]])
    assert [file.url for file in globbed.files] == [*sorted(paths)[:2], paths[0]]
    assert globbed.rows == 3


def test_a_name_with_glob_signs_is_taken_by_its_letter_where_it_exists(tmp_path: Path) -> None:
    path = write(tmp_path / "odd[1].parquet", {"prompt": ["x"]})
    assert files.open_manifest([path]).files[0].url == path


def test_a_manifest_may_lie_on_an_object_store(tmp_path: Path) -> None:
    local = write(tmp_path / "m.parquet", {"prompt": ["x"], "tag": [1]})
    root = f"memory://{uuid.uuid4().hex}"
    storage.put_atomic(local, f"{root}/in/m.parquet")
    manifest = files.open_manifest([f"{root}/in"])
    [window] = files.cut_windows(manifest, 10)
    with reading.Reader(extras=manifest.extras) as reader:
        fragment = reader.read(window)
    assert fragment.tables[0].to_pydict() == {"prompt": ["x"]}
    assert fragment.extras is not None
    assert fragment.extras.to_pydict() == {"tag": [1]}
    assert str(fragment.bases).startswith("memory://")


def test_nothing_at_a_location_says_what_to_do(tmp_path: Path) -> None:
    for location in (tmp_path / "absent.parquet", tmp_path / "*.parquet", tmp_path):
        with pytest.raises(ManifestError, match="no manifest there; name a Parquet file"):
            files.open_manifest([str(location)])


@pytest.mark.parametrize("content", [b"", b"id,prompt\n1,a cat\n", b"PAR1" + b"\x00" * 50 + b"PAR1"])
def test_a_file_that_is_not_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.parquet"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=r"m\.parquet: not a readable Parquet file"):
        files.open_manifest([str(path)])


@pytest.mark.parametrize(
    ("name", "option"), [("a.csv", "--csv"), ("a.tsv.gz", "--tsv"), ("a.ndjson", "--jsonl"), ("a.txt", "--text")]
)
def test_a_table_that_is_no_parquet_is_told_how_it_becomes_a_manifest(tmp_path: Path, name: str, option: str) -> None:
    (tmp_path / name).write_text("prompt\na cat\n")
    said = f"{name} is no Parquet file; make a manifest of it: python jobs/make_manifest.py {option} {tmp_path / name} "
    with pytest.raises(ManifestError, match=re.escape(said)):
        files.open_manifest([str(tmp_path / name)])


def test_a_folder_of_tables_is_told_the_same_of_one_of_them(tmp_path: Path) -> None:
    folder = tmp_path / "two words"
    folder.mkdir()
    for name in ("notes.md", "b.csv", "c.csv"):
        (folder / name).write_text("prompt\na cat\n")
    said = f"no Parquet file there; make a manifest of it: python jobs/make_manifest.py --csv '{folder}/b.csv' --output"
    with pytest.raises(ManifestError, match=re.escape(said)):
        files.open_manifest([str(folder)])


def test_types_that_do_not_go_together_name_the_column_and_both_files(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"tag": [1]})
    write(tmp_path / "b.parquet", {"tag": ["one"]})
    with pytest.raises(ManifestError, match=r"'tag' is int64 in .*a\.parquet but string in .*b\.parquet"):
        files.open_manifest([str(tmp_path)])


def test_a_column_that_appears_twice_is_refused(tmp_path: Path) -> None:
    table = pa.table([pa.array([1]), pa.array([2])], names=["tag", "tag"])
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match="column 'tag' appears twice"):
        files.open_manifest([str(tmp_path)])


def test_other_columns_get_one_type_and_keep_their_values(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"n": pa.array([-1], pa.int32()), "s": pa.array(["x"]).dictionary_encode()})
    write(tmp_path / "b.parquet", {"n": pa.array([2**64 - 1], pa.uint64()), "s": pa.array(["y"]), "t": [[1]]})
    manifest = files.open_manifest([str(tmp_path)])
    [window] = files.cut_windows(manifest, 10)
    with reading.Reader(extras=manifest.extras) as reader:
        extras = reader.read(window).extras
    assert extras is not None
    values = extras.to_pydict()
    assert [int(value) for value in values["n"]] == [-1, 2**64 - 1]
    assert values["s"] == ["x", "y"]
    assert values["t"] == [None, [1]]


def test_windows_cover_every_row_once_over_files_and_row_groups(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"prompt": [str(n) for n in range(12_345)]}, row_group_size=1000)
    write(tmp_path / "b.parquet", {"prompt": [str(n) for n in range(12_345, 12_350)]})
    write(tmp_path / "c.parquet", {"prompt": [str(n) for n in range(12_350, 30_000)]}, row_group_size=7777)
    manifest = files.open_manifest([str(tmp_path)])
    windows = files.cut_windows(manifest, 1000)
    assert [sum(p.stop - p.start for p in pieces) for pieces in windows] == [10_000, 10_000, 10_000]
    assert [sum(p.stop - p.start for p in w) for w in files.cut_windows(manifest, 25_000)] == [25_000, 5000]

    def prompts(order: list[int]) -> list[str]:
        with reading.Reader() as reader:
            read = {n: reader.read(windows[n]) for n in order}
        tables = [table for n in sorted(read) for table in read[n].tables]
        return [value for table in tables for value in table.column("prompt").to_pylist()]

    assert prompts([0, 1, 2]) == [str(n) for n in range(30_000)]
    assert prompts([2, 0, 1]) == [str(n) for n in range(30_000)]
    assert prompts([0, 2, 1]) == [str(n) for n in range(30_000)]


def test_windows_of_inline_images_end_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [{"bytes": bytes([n]) * 10_000, "path": None} for n in range(40)]
    write(tmp_path / "m.parquet", {"prompt": ["x"] * 40, "image": images})
    monkeypatch.setattr(files, "WINDOW_BYTES", 100_000)
    windows = files.cut_windows(files.open_manifest([str(tmp_path)]), 1000)
    sizes = [sum(p.stop - p.start for p in pieces) for pieces in windows]
    assert sum(sizes) == 40
    assert 8 <= max(sizes) <= 10
    monkeypatch.setattr(files, "WINDOW_BYTES", 1)
    assert len(files.cut_windows(files.open_manifest([str(tmp_path)]), 1000)) == 40


INLINE = {
    "all": [{"bytes": b"i" * 99, "path": None}] * 4,
    "none": [None, {"bytes": None, "path": "a.png"}, {"bytes": None, "path": None}, None],
    "struct": [None, {"bytes": b"i" * 99, "path": None}, None, {"bytes": b"j", "path": "b.png"}],
    "path": [{"bytes": b"i", "path": "a"}, {"bytes": None, "path": "b"}, None, {"bytes": None, "path": "c"}],
    "read": [{"bytes": b"i", "path": None}, {"bytes": None, "path": ""}, None, {"bytes": None, "path": "c"}],
}


@pytest.mark.parametrize("kind", INLINE)
@pytest.mark.parametrize("statistics", [True, False])
def test_the_driver_learns_which_rows_have_an_image_without_reading_images(
    tmp_path: Path, kind: str, statistics: bool
) -> None:
    table = pa.table({"image": pa.array(INLINE[kind]), "prompt": ["x"] * 4})
    pq.write_table(table, tmp_path / "m.parquet", write_statistics=statistics)
    [window] = files.cut_windows(files.open_manifest([str(tmp_path)]), 10)
    with reading.Reader(inline=False) as reader:
        [light] = reader.read(window).tables
    for real, seen in zip(INLINE[kind], light.column("image").to_pylist(), strict=True):
        real, seen = real or {"bytes": None, "path": None}, seen or {"bytes": None, "path": None}
        assert seen["path"] == real["path"]
        assert seen["bytes"] in (None, b"")
        if not real["path"]:
            assert (seen["bytes"] is None) == (real["bytes"] is None)


def test_a_file_without_any_request_column_still_has_its_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"prompt": ["x"]})
    write(tmp_path / "b.parquet", {"tag": [1, 2, 3]})
    manifest = files.open_manifest([str(tmp_path)])
    [window] = files.cut_windows(manifest, 10)
    for columns, extras in ((("prompt",), None), (("id",), None), (("prompt",), manifest.extras)):
        with reading.Reader(columns, extras) as reader:
            assert sum(table.num_rows for table in reader.read(window).tables) == 4


def test_a_file_that_changes_while_the_job_runs_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "m.parquet", {"prompt": ["x"] * 100})
    [window] = files.cut_windows(files.open_manifest([path]), 10)
    write(tmp_path / "m.parquet", {"prompt": ["x"] * 10})
    with reading.Reader() as reader, pytest.raises(ManifestError, match=r"m\.parquet: rows 0 to 100"):
        reader.read(window)
    Path(path).unlink()
    with reading.Reader() as reader, pytest.raises(ManifestError, match="no such file"):
        reader.read(window)


def test_stretches_hold_all_windows_in_order_and_begin_with_a_row_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "WINDOW_ROWS", 7)
    monkeypatch.setattr(files, "STRETCH_ROWS", 20)
    for name, rows, group in (("a", 100, 30), ("b", 90, 5)):
        pq.write_table(pa.table({"prompt": ["x"] * rows}), tmp_path / f"{name}.parquet", row_group_size=group)
    manifest = files.open_manifest([str(tmp_path)])
    windows = files.cut_windows(manifest, 5)
    stretches = files.cut_stretches(manifest, windows)
    assert [window for stretch in stretches for window in stretch] == windows
    begins = [(Path(stretch[0][0].url).stem, stretch[0][0].start) for stretch in stretches]
    # The first window that begins in another row group than the one before.
    assert begins[:4] == [("a", 0), ("a", 35), ("a", 63), ("a", 91)]
    assert all(
        sum(piece.stop - piece.start for window in stretch for piece in window) >= 20 for stretch in stretches[:-1]
    )
