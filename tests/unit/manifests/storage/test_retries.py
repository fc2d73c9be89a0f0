"""Faults of storage: those that pass are waited for, the others are told at once with what to do."""

from __future__ import annotations

import errno
import io
import logging
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from manifests import storage
from manifests.errors import StorageError
from manifests.storage import retries


class FlakyFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """A store in memory of which every so-many-th request fails."""

    protocol = "flaky"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    requests = 0
    every = 5
    error: Exception = ConnectionResetError(errno.ECONNRESET, "reset by peer")

    def _request(self) -> None:
        FlakyFileSystem.requests += 1
        if self.every and FlakyFileSystem.requests % self.every == 0:
            raise self.error

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.replace("flaky://", "memory://")))

    def cat_file(self, *args: Any, **kwargs: Any) -> Any:
        self._request()
        return super().cat_file(*args, **kwargs)

    def pipe_file(self, *args: Any, **kwargs: Any) -> Any:
        self._request()
        return super().pipe_file(*args, **kwargs)

    def put_file(self, *args: Any, **kwargs: Any) -> Any:
        self._request()
        return super().put_file(*args, **kwargs)

    def info(self, *args: Any, **kwargs: Any) -> Any:
        self._request()
        return super().info(*args, **kwargs)

    def ls(self, *args: Any, **kwargs: Any) -> Any:
        self._request()
        return super().ls(*args, **kwargs)

    def open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        file = super().open(path, mode, *args, **kwargs)
        return _FlakyFile(bytes(file.getvalue()), self._request) if mode == "rb" else file


class _FlakyFile(io.BytesIO):
    def __init__(self, data: bytes, request: Any) -> None:
        super().__init__(data)
        self._request = request

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self._request()
        return data


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FlakyFileSystem]]:
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(FlakyFileSystem, "requests", 0)
    yield FlakyFileSystem
    FlakyFileSystem.store.clear()


def test_every_operation_survives_a_store_that_fails_every_fifth_request(
    flaky: type[FlakyFileSystem], tmp_path: Path
) -> None:
    root = f"flaky://{uuid.uuid4().hex}"
    (tmp_path / "local").write_bytes(b"local")
    for number in range(20):
        url = storage.join(root, "parts", f"{number:05d}")
        storage.write_atomic(url, str(number).encode())
        assert storage.exists(url)
        assert storage.read_bytes(url) == str(number).encode()
        storage.put_atomic(str(tmp_path / "local"), storage.join(root, "put"))
        with storage.open_read(url) as file:
            assert file.read(1) + file.read() == str(number).encode()
    assert len(storage.list_names(storage.join(root, "parts"))) == 20
    storage.remove(storage.join(root, "parts"), recursive=True)
    assert storage.list_names(storage.join(root, "parts")) == []
    assert flaky.requests > 100


def test_a_manifest_is_read_through_a_store_that_fails_every_third_request(
    flaky: type[FlakyFileSystem], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flaky, "every", 3)
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": list(range(10_000))}), sink, row_group_size=500)
    storage.write_atomic("flaky://m/m.parquet", sink.getvalue())
    with storage.open_arrow("flaky://m/m.parquet") as file:
        assert pq.read_table(file).column("x").to_pylist() == list(range(10_000))


def test_a_fault_that_stays_ends_after_its_time_and_says_so(
    flaky: type[FlakyFileSystem], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(flaky, "every", 1)
    monkeypatch.setattr(retries, "RETRY_FOR_S", 0.05)
    with caplog.at_level(logging.WARNING), pytest.raises(StorageError, match=r"did not pass within 0\.05 s"):
        storage.write_atomic("flaky://x/y", b"")
    assert "cannot write flaky://x/y: ConnectionResetError" in caplog.text
    assert "trying again in" in caplog.text


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "free some space"),
        (
            PermissionError("The difference between the request time and the current time is too large."),
            "set the clock of this machine",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "raise the quota"),
        (OSError(errno.EROFS, "Read-only file system"), "mounted read-only"),
        (PermissionError(errno.EACCES, "Permission denied"), "check the access rights and the credentials"),
        (FileNotFoundError("The specified bucket does not exist"), "the bucket must exist"),
        (type("NoCredentialsError", (Exception,), {})("Unable to locate credentials"), "give credentials"),
        (ValueError("odd"), "check the address"),
    ],
)
def test_what_does_not_pass_is_told_at_once_with_what_to_do(
    flaky: type[FlakyFileSystem], monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    monkeypatch.setattr(flaky, "every", 1)
    monkeypatch.setattr(flaky, "error", error)
    with pytest.raises(StorageError, match=told):
        storage.write_atomic("flaky://x/y", b"")
    assert flaky.requests == 1


class AnswerError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), True),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), True),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (OSError("broken transfer"), True),
        (AnswerError(503), True),
        (AnswerError(400), False),
        (type("EndpointConnectionError", (Exception,), {})("x"), True),
        (_caused(OSError(errno.EBUSY, "SlowDown"), AnswerError(503)), True),
        (_caused(OSError("x"), PermissionError()), False),
        (OSError(errno.ENOSPC, "full"), False),
        (FileNotFoundError(), False),
        (ModuleNotFoundError("s3fs"), False),
        (KeyError("bug"), False),
    ],
)
def test_which_faults_pass(error: Exception, expected: bool) -> None:
    assert retries.passes(error) is expected


def test_a_folder_without_permission_is_told(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="access rights"):
        storage.write_atomic(str(tmp_path / "x"), b"")


def test_a_full_disk_leaves_no_half_file_and_is_told(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        storage.write_atomic(str(disk / "fits"), b"x" * 1000)
        with pytest.raises(StorageError, match=r"No space left on device.*free some space"):
            storage.write_atomic(str(disk / "too-large"), b"x" * 1_000_000)
        assert os.listdir(disk) == ["fits"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
