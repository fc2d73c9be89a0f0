"""The folder for temporary files: what lies there goes with its block, and a disk without room is named."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from manifests import storage
from manifests.errors import StorageError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def fill_up() -> None:
    with open("/dev/full", "wb") as file:
        file.write(b"x")


def test_what_lies_there_goes_with_the_block(folder: Path) -> None:
    with storage.temporary_folder("of-tests-") as made:
        assert Path(made).parent == folder
        (Path(made) / "file").touch()
    assert os.listdir(folder) == []


def test_a_folder_without_room_is_named_with_what_to_do(folder: Path) -> None:
    with pytest.raises(StorageError) as refused, storage.temporary_folder("of-tests-"):
        fill_up()
    assert f"temporary files, {folder}, has no room" in str(refused.value)
    assert "set TMPDIR" in str(refused.value)
    assert os.listdir(folder) == []


def test_so_is_it_where_a_remote_file_is_gathered_there(folder: Path) -> None:
    with pytest.raises(StorageError, match="set TMPDIR"), storage.writing("memory://temporary/file"):
        fill_up()
    assert not storage.exists("memory://temporary/file")
    assert os.listdir(folder) == []


def test_other_errors_and_those_of_storage_stay_what_they_are() -> None:
    with pytest.raises(PermissionError), storage.temporary_folder("of-tests-"):
        raise PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(StorageError, match=r"^the bucket"), storage.temporary_folder("of-tests-"):
        raise StorageError("the bucket is full")
