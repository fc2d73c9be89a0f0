"""Reading files: whole or in ranges, opened for Python or for Arrow, or copied to this machine.

A missing file stays a `FileNotFoundError`, because callers ask for it.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa

from manifests.storage import retries
from manifests.storage.locations import filesystem, is_remote, local_path


@contextlib.contextmanager
def open_read(url: str) -> Iterator[IO[bytes]]:
    """Open a file for reading; close it at the end.

    Raises:
        FileNotFoundError: there is no such file.
        StorageError: the storage refused.
    """
    with _open(url) as file:
        yield file


def _open(url: str) -> Any:
    def attempt() -> Any:
        fs, path = filesystem(url)
        return fs.open(path, "rb")

    file = retries.request("read", url, attempt)
    return _Steady(file, url) if is_remote(url) else file


class _Steady(io.RawIOBase):
    """A remote file whose reads are tried again from where they began."""

    def __init__(self, file: IO[bytes], url: str) -> None:
        super().__init__()
        self._file = file
        self._url = url

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        begin = self._file.tell()

        def attempt() -> bytes:
            self._file.seek(begin)
            return self._file.read(-1 if size is None else size)

        return retries.request("read", self._url, attempt)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


def open_arrow(url: str) -> pa.NativeFile:
    """Open a file for Arrow, which reads local ones without Python in between; the caller closes it."""
    if not is_remote(url):
        return retries.request("read", url, lambda: pa.OSFile(local_path(url), "rb"))
    return pa.PythonFile(_open(url), mode="r")


def read_bytes(url: str) -> bytes:
    """The whole content of a file.

    Raises:
        FileNotFoundError: there is no such file.
        StorageError: the storage refused.
    """

    def attempt() -> bytes:
        fs, path = filesystem(url)
        return bytes(fs.cat_file(path))

    return retries.request("read", url, attempt)


def read_range(url: str, start: int, stop: int) -> bytes:
    """Some bytes of a file, from `start` to `stop` (exclusive), fewer where it ends before.

    Raises:
        FileNotFoundError: there is no such file.
        StorageError: the storage refused.
    """

    def attempt() -> bytes:
        fs, path = filesystem(url)
        return bytes(fs.cat_file(path, start=start, end=stop))

    return retries.request("read", url, attempt)


def fetch(url: str, local_file: str) -> None:
    """Copy a file to this machine; a failed copy may leave some of it, so the caller renames.

    Raises:
        FileNotFoundError: there is no such file.
        StorageError: the storage refused.
    """

    def attempt() -> None:
        fs, path = filesystem(url)
        fs.get_file(path, local_file)

    retries.request("read", url, attempt)
