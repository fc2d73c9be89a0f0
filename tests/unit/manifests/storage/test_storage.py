"""Storage: what is written appears whole or not at all, on local folders and on object stores alike."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

import pytest

from manifests import storage
from manifests.errors import StorageError


@pytest.fixture(params=["local", "file", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return {
        "local": str(tmp_path),
        "file": f"file://{tmp_path}",
        "memory": f"memory://{uuid.uuid4().hex}",
    }[request.param]


def test_what_is_filled_bit_by_bit_appears_whole_or_not_at_all(root: str) -> None:
    url = storage.join(root, "deep", "big.parquet")
    with storage.writing(url) as file:
        file.write(b"one ")
        assert storage.list_names(storage.join(root, "deep")) == []
        file.write(b"two")
    with pytest.raises(ZeroDivisionError), storage.writing(url) as file:
        file.write(b"other" * (1 // 0))
    assert storage.read_bytes(url) == b"one two"
    assert storage.list_names(storage.join(root, "deep")) == ["big.parquet"]


def test_what_is_written_is_read_back_and_replaced(root: str) -> None:
    url = storage.join(root, "deep", "folder", "part.arrow")
    assert not storage.exists(url)
    storage.write_atomic(url, b"one")
    storage.write_atomic(url, b"two")
    assert storage.read_bytes(url) == b"two"
    with storage.open_read(url) as file:
        assert file.read(2) == b"tw"
    with storage.open_arrow(url) as file:
        assert file.read() == b"two"
    storage.write_atomic(url, b"0123456789")
    assert storage.read_range(url, 2, 5) == b"234"
    assert storage.read_range(url, 8, 500) == b"89"
    assert storage.exists(url)
    assert storage.list_names(storage.join(root, "deep", "folder")) == ["part.arrow"]
    assert storage.list_names(storage.join(root, "deep")) == ["folder"]


def test_a_local_file_is_put_and_stays(root: str, tmp_path: Path) -> None:
    local = tmp_path / "made.tar"
    local.write_bytes(b"x" * 1000)
    storage.put_atomic(str(local), storage.join(root, "out", "00000.tar"))
    assert storage.read_bytes(storage.join(root, "out", "00000.tar")) == local.read_bytes()


def test_absent_things_are_absent_and_not_errors(root: str) -> None:
    assert storage.list_names(storage.join(root, "nowhere")) == []
    storage.remove(storage.join(root, "nowhere"))
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(storage.join(root, "nowhere"))
    with pytest.raises(FileNotFoundError):
        storage.read_range(storage.join(root, "nowhere"), 0, 5)
    with pytest.raises(FileNotFoundError):
        storage.open_arrow(storage.join(root, "nowhere"))
    with pytest.raises(FileNotFoundError), storage.open_read(storage.join(root, "nowhere")):
        pass


def test_removing_a_file_or_a_folder(root: str) -> None:
    for name in ("a", "b"):
        storage.write_atomic(storage.join(root, "parts", name), b"")
    storage.remove(storage.join(root, "parts", "a"))
    assert storage.list_names(storage.join(root, "parts")) == ["b"]
    storage.remove(storage.join(root, "parts"), recursive=True)
    assert storage.list_names(storage.join(root, "parts")) == []


def test_a_failure_in_the_middle_leaves_the_former_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "00000.tar")
    storage.write_atomic(url, b"former")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"cannot write .*00000\.tar: .*No space left.*free some space"):
        storage.write_atomic(url, b"latter")
    source = tmp_path / "source"
    source.write_bytes(b"latter")
    with pytest.raises(StorageError, match=r"cannot write .*00000\.tar"):
        storage.put_atomic(str(source), url)
    assert storage.read_bytes(url) == b"former"
    assert sorted(os.listdir(tmp_path)) == ["00000.tar", "source"]


def test_a_half_written_file_of_a_killed_writer_is_never_named_and_is_swept_later(tmp_path: Path) -> None:
    left = tmp_path / ".00000.tar.0123.tmp"
    left.write_bytes(b"half")
    (tmp_path / "00000.tar").write_bytes(b"whole")
    assert storage.list_names(str(tmp_path)) == ["00000.tar"]
    assert storage.sweep(str(tmp_path)) == 0
    os.utime(left, (time.time() - 7200,) * 2)
    assert storage.sweep(str(tmp_path)) == 1
    assert os.listdir(tmp_path) == ["00000.tar"]
    assert storage.sweep("memory://anywhere") == 0


def test_what_storage_refuses_names_the_location_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"cannot write .*file/inside.*check"):
        storage.write_atomic(str(tmp_path / "file" / "inside"), b"")
    with pytest.raises(StorageError, match="cannot read nothing-like-it://x"):
        storage.read_bytes("nothing-like-it://x/y")
    with pytest.raises(StorageError, match=r"cannot read .*check"):
        storage.read_bytes(str(tmp_path))


def test_what_is_old_is_told_by_the_disk_and_not_by_this_machines_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node whose clock is an hour ahead of the server's removes no file that another one is writing."""
    being_written = tmp_path / "deep" / ".00000.tar.0123.tmp"
    being_written.parent.mkdir()
    being_written.write_bytes(b"half")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * 3600)
    assert storage.sweep(str(tmp_path), below=True) == 0
    os.utime(being_written, (now - 7200,) * 2)
    assert storage.sweep(str(tmp_path)) == 0, "it lies in a folder below"
    assert storage.sweep(str(tmp_path), below=True) == 1
    assert os.listdir(being_written.parent) == []
