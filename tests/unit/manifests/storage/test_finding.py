"""Finding: which files a location stands for, and that nothing is left out without being told."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import fsspec
import pytest

from manifests import storage
from manifests.errors import StorageError
from manifests.storage import finding

ENDINGS = (".parquet",)


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(root: Path, found: storage.Found) -> list[str]:
    return [str(Path(file).relative_to(root)) for file in found.files]


def left(root: Path, found: storage.Found) -> dict[str, list[str]]:
    return {reason: [path.removeprefix(f"{root}/") for path in paths] for reason, paths in found.left_out.items()}


def test_a_folder_that_a_glob_matches_is_opened(tmp_path: Path) -> None:
    touch(tmp_path, "day1.parquet/part-0.parquet", "day1.parquet/_SUCCESS", "day2.parquet")
    found = storage.find(f"{tmp_path}/*.parquet", ENDINGS)
    assert names(tmp_path, found) == ["day1.parquet/part-0.parquet", "day2.parquet"]
    assert left(tmp_path, found) == {finding.MARKER: ["day1.parquet/_SUCCESS"]}


def test_everything_that_lies_there_is_either_found_or_left_out_with_a_reason(tmp_path: Path) -> None:
    touch(tmp_path, "a.parquet", "B.PARQUET", "notes.txt", ".hidden.parquet", "_old/b.parquet", "_SUCCESS", "deep/c.pq")
    os.mkfifo(tmp_path / "pipe.parquet")
    (tmp_path / "gone.parquet").symlink_to(tmp_path / "nowhere")
    found = storage.find(str(tmp_path), ENDINGS)
    assert names(tmp_path, found) == ["B.PARQUET", "a.parquet"]
    assert left(tmp_path, found) == {
        "not one of .parquet": ["deep/c.pq", "notes.txt"],
        finding.HIDDEN: [".hidden.parquet"],
        finding.MARKED: ["_old/"],
        finding.MARKER: ["_SUCCESS"],
        finding.NO_FILE: ["gone.parquet", "pipe.parquet"],
    }


def test_names_that_begin_with_an_underscore_are_skipped_among_parquet_parts_only(tmp_path: Path) -> None:
    touch(tmp_path, "_DSC0001.JPG", "_old/IMG_2.jpg", "IMG_1.JPG", "._IMG_1.JPG", "IMG_9.HEIC")
    found = storage.find(str(tmp_path), (".jpg",), marks=False)
    assert names(tmp_path, found) == ["IMG_1.JPG", "_DSC0001.JPG", "_old/IMG_2.jpg"]
    assert left(tmp_path, found) == {finding.HIDDEN: ["._IMG_1.JPG"], "not one of .jpg": ["IMG_9.HEIC"]}


def test_linked_folders_are_followed_and_no_folder_is_read_twice(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    touch(root, "a.parquet", "sub/b.parquet")
    touch(elsewhere, "c.parquet")
    (root / "linked").symlink_to(elsewhere)
    (root / "again").symlink_to(root / "sub")
    (root / "loop").symlink_to(root)
    found = storage.find(str(root), ENDINGS)
    assert names(root, found) == ["a.parquet", "linked/c.parquet", "sub/b.parquet"]
    assert left(root, found) == {finding.LINKED: ["again/", "loop/"]}


def test_the_output_of_a_run_is_no_input_unless_it_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "requests.parquet", "images/00000.parquet", "images/_run/plan.json")
    for location in (tmp_path, f"{tmp_path}/*", f"{tmp_path}/**/*.parquet"):
        found = storage.find(str(location), ENDINGS)
        assert names(tmp_path, found) == ["requests.parquet"]
        assert left(tmp_path, found) == {finding.OUTPUT: ["images/"]}
    assert names(tmp_path, storage.find(f"{tmp_path}/images", ENDINGS)) == ["images/00000.parquet"]


def test_an_object_store_is_looked_through_by_the_same_rules() -> None:
    root = f"memory://{uuid.uuid4().hex}"
    memory = fsspec.filesystem("memory")
    for name in (
        "a.parquet",
        "steps=1/b.parquet",
        "out/_run/plan.json",
        "out/00000.parquet",
        "_SUCCESS",
        "d.parquet/e.parquet",
    ):
        memory.pipe_file(f"{root.removeprefix('memory:/')}/{name}", b"x")
    for location, expected in (
        (root, ["a.parquet", "d.parquet/e.parquet", "steps=1/b.parquet"]),
        (f"{root}/*.parquet", ["a.parquet", "d.parquet/e.parquet"]),
        (f"{root}/*/*.parquet", ["d.parquet/e.parquet", "steps=1/b.parquet"]),
    ):
        found = storage.find(location, ENDINGS)
        assert [file.partition(root.removeprefix("memory://") + "/")[2] for file in found.files] == expected
        assert dict(found.partition_of(found.files[-1])) == ({"steps": "1"} if "steps=1/b.parquet" in expected else {})
    assert finding.OUTPUT in storage.find(root, ENDINGS).left_out


def test_a_folder_that_must_not_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.parquet", "secret/b.parquet")
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match="secret"):
        storage.find(str(tmp_path), ENDINGS)


def test_a_part_of_a_glob_with_signs_is_taken_by_its_letter_where_it_exists(tmp_path: Path) -> None:
    touch(tmp_path, "odd[1]/x/a.parquet", "odd1/x/b.parquet")
    assert names(tmp_path, storage.find(f"{tmp_path}/odd[1]/*/*.parquet", ENDINGS)) == ["odd[1]/x/a.parquet"]
    assert names(tmp_path, storage.find(f"{tmp_path}/odd?/*/*.parquet", ENDINGS)) == ["odd1/x/b.parquet"]


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("", {"steps": "3", "a b": "c/d", "lang": None}),
        ("/steps=*/*", {"steps": "3", "a b": "c/d", "lang": None}),
        ("/steps=3", {"a b": "c/d", "lang": None}),
    ],
)
def test_folders_below_what_was_named_give_columns(
    tmp_path: Path, location: str, expected: dict[str, str | None]
) -> None:
    touch(tmp_path, "steps=3/a%20b=c%2Fd/lang=__HIVE_DEFAULT_PARTITION__/plain/part.parquet")
    found = storage.find(f"{tmp_path}{location}", ENDINGS)
    assert dict(found.partition_of(found.files[0])) == expected
    assert dict(found.partition_above) == ({} if "steps" in expected else {"steps": "3"})
