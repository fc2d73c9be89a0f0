"""The only place that touches storage: a thin room over fsspec for local folders and object stores alike.

Locations are plain local paths or anything fsspec knows (`file://`, `s3://`, `memory://`, `https://` …). What
is written appears whole or not at all: locally under a hidden temporary name that is synced and then renamed,
on object stores with a single put, which is atomic there. All functions are stateless, so any process of the
cluster may call them.

A fault that passes by itself is tried again with growing waits (`faults.py` says which and how long). A missing
file stays a `FileNotFoundError` for readers, because they ask for it; everything else that storage refuses
becomes a `StorageError` that names the location and what to do.
"""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import pyarrow as pa
from fsspec.core import url_to_fs

from manifests.errors import KandinskyBatchError, StorageError
from manifests.storage import retries

Result = TypeVar("Result")


def _do(action: str, url: str, call: Callable[[], Result]) -> Result:
    """Call with retries, and turn what storage raises for good into a `StorageError` with a reason.

    A missing file passes through, except where something was to be written: then a bucket is missing.
    """
    try:
        return retries.retried(call, f"{action} {url}")
    except KandinskyBatchError:
        raise
    except Exception as error:  # every backend has exceptions of its own, with no common base
        if isinstance(error, FileNotFoundError) and action != "write":
            raise
        reason = f"{type(error).__name__}: {error}"
        raise StorageError(f"cannot {action} {url}: {reason}; {retries.advice(error)}") from error


def _filesystem(url: str) -> tuple[Any, str]:
    """The file system of a location and the path inside it."""
    fs, path = url_to_fs(url)
    return fs, path


def _protocol(url: str) -> str:
    return url.split("://", 1)[0].split("::", 1)[0] if "://" in url else ""


def is_remote(url: str) -> bool:
    """True unless the location is a path of this machine."""
    return _protocol(url) not in ("", "file", "local")


def local_path(url: str) -> str:
    """The plain absolute path of a location that is not remote."""
    return str(_filesystem(url)[1])


def absolute(url: str) -> str:
    """The location in a form that any working directory understands; remote ones stay as they are."""
    return url if is_remote(url) else local_path(url)


def join(url: str, *parts: str) -> str:
    """Append path parts to a location."""
    joined = url
    for part in parts:
        bare = joined.endswith(("://", "/"))
        joined = f"{joined}{part.lstrip('/')}" if bare else f"{joined}/{part.lstrip('/')}"
    return joined


def folder_of(url: str) -> str:
    """The folder a file lies in."""
    head, slashes, tail = url.partition("://")
    if not slashes:
        return posixpath.dirname(url)
    return f"{head}://{posixpath.dirname(tail)}"


def is_absolute(location: str) -> bool:
    """True for absolute paths and for anything with a protocol."""
    return location.startswith("/") or "://" in location


def resolve(location: str, base: str) -> str:
    """A location as seen from the folder `base`; absolute paths and anything with `://` stay unchanged."""
    if is_absolute(location):
        return location
    head, slashes, tail = base.partition("://")
    if not slashes:
        return posixpath.normpath(join(base, location))
    return f"{head}://{posixpath.normpath(join(tail, location)) if tail else posixpath.normpath(location)}"


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
        fs, path = _filesystem(url)
        return fs.open(path, "rb")

    file = _do("read", url, attempt)
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

        return _do("read", self._url, attempt)

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
        return _do("read", url, lambda: pa.OSFile(local_path(url), "rb"))
    return pa.PythonFile(_open(url), mode="r")


def read_bytes(url: str) -> bytes:
    """The whole content of a file.

    Raises:
        FileNotFoundError: there is no such file.
        StorageError: the storage refused.
    """

    def attempt() -> bytes:
        fs, path = _filesystem(url)
        return bytes(fs.cat_file(path))

    return _do("read", url, attempt)


@contextlib.contextmanager
def _replacing(url: str) -> Iterator[IO[bytes]]:
    """A local file under a hidden name; at the end it is synced and gets its own name in one step."""
    target = Path(local_path(url))
    target.parent.mkdir(parents=True, exist_ok=True)
    # The random part keeps a writer that was taken for dead from mixing its bytes with its successor's.
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    # The rename itself survives a power cut only when the folder is synced too.
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def writing(url: str) -> Iterator[IO[bytes]]:
    """A file to be filled bit by bit; readers see all of it when the block has ended well, and never a part of it.

    What is to become a remote file lies in this machine's folder for temporary files until then.

    Raises:
        StorageError: the storage refused.
    """
    try:
        if is_remote(url):
            with tempfile.NamedTemporaryFile(prefix="kandinsky-batch-") as file:
                yield file.file
                file.flush()
                put_atomic(file.name, url)
        else:
            with _replacing(url) as file:
                yield file
    except OSError as error:
        reason = f"{type(error).__name__}: {error}"
        raise StorageError(f"cannot write {url}: {reason}; {retries.advice(error)}") from error


def write_atomic(url: str, data: bytes) -> None:
    """Write a file so that readers see all of it or none; replaces what was there.

    Raises:
        StorageError: the storage refused.
    """

    def attempt() -> None:
        if not is_remote(url):
            with _replacing(url) as file:
                file.write(data)
            return
        fs, path = _filesystem(url)
        fs.pipe_file(path, data)

    _do("write", url, attempt)


def put_atomic(local_file: str, url: str) -> None:
    """Copy a local file to a location so that readers see all of it or none; the local file stays.

    Raises:
        FileNotFoundError: there is no such local file.
        StorageError: the storage refused.
    """
    os.stat(local_file)

    def attempt() -> None:
        if not is_remote(url):
            with open(local_file, "rb") as source, _replacing(url) as file:
                shutil.copyfileobj(source, file, 16 << 20)
            return
        fs, path = _filesystem(url)
        fs.put_file(local_file, path)

    _do("write", url, attempt)


def copy(url: str, target: str) -> None:
    """Copy a file within one storage so that readers of the target see all of it or none; replaces what was there.

    Raises:
        StorageError: the storage refused.
    """
    if not is_remote(url):
        put_atomic(local_path(url), target)
        return

    def attempt() -> None:
        fs, path = _filesystem(url)
        fs.cp_file(path, _filesystem(target)[1])

    _do("write", target, attempt)


def exists(url: str) -> bool:
    """True where there is a file or folder.

    Asks for the entry instead of fsspec's `exists`, which takes a refused request for an absent file.
    """

    def attempt() -> bool:
        fs, path = _filesystem(url)
        fs.invalidate_cache(posixpath.dirname(path))
        try:
            fs.info(path)
        except FileNotFoundError:
            return False
        return True

    return _do("read", url, attempt)


def list_names(folder: str) -> list[str]:
    """Names in a folder, sorted; empty where there is no such folder. Temporary files are not named."""

    def attempt() -> list[str]:
        fs, path = _filesystem(folder)
        fs.invalidate_cache(path)
        try:
            entries = fs.ls(path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = {posixpath.basename(entry.rstrip("/")) for entry in entries}
        return sorted(name for name in names if name and not _is_temporary(name))

    return _do("list", folder, attempt)


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


@dataclass(frozen=True)
class Entry:
    """A file as its storage lists it.

    Attributes:
        size: in bytes; None where the storage does not say.
        version: another one after each write, as far as the storage tells (by ETag, time or size).
    """

    size: int | None
    version: str


def list_tree(folder: str) -> dict[str, Entry]:
    """Every file below a folder by its path inside it; empty where there is no such folder.

    Raises:
        StorageError: the storage refused.
    """

    def attempt() -> dict[str, Entry]:
        fs, path = _filesystem(folder)
        fs.invalidate_cache(path)
        try:
            found = fs.find(path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {name[len(path) :].lstrip("/"): Entry(entry.get("size"), _state(entry)) for name, entry in found.items()}

    return _do("list", folder, attempt)


def _state(entry: dict[str, Any]) -> str:
    """What tells one state of a file from the next, by the names that the backends of fsspec have for it."""
    for name in ("ETag", "etag", "md5Hash", "content_md5", "mtime", "created", "LastModified"):
        if entry.get(name):
            return str(entry[name])
    return ""


def fetch(url: str, local_file: str) -> None:
    """Copy a file to this machine; a failed copy may leave some of it, so the caller renames.

    Raises:
        FileNotFoundError: there is no such file.
        StorageError: the storage refused.
    """

    def attempt() -> None:
        fs, path = _filesystem(url)
        fs.get_file(path, local_file)

    _do("read", url, attempt)


def remove(url: str, recursive: bool = False) -> None:
    """Remove a file, or a folder with `recursive`; nothing happens where there is none."""

    def attempt() -> None:
        fs, path = _filesystem(url)
        fs.invalidate_cache(path)
        with contextlib.suppress(FileNotFoundError):
            fs.rm(path, recursive=recursive)

    _do("remove", url, attempt)


def sweep(folder: str, older_than_s: float = 3600.0) -> int:
    """Remove temporary files that killed writers left in a local folder; returns how many there were."""
    if is_remote(folder) or not os.path.isdir(local_path(folder)):
        return 0

    def attempt() -> int:
        swept = 0
        for entry in os.scandir(local_path(folder)):
            with contextlib.suppress(FileNotFoundError):
                if _is_temporary(entry.name) and time.time() - entry.stat().st_mtime > older_than_s:
                    os.unlink(entry.path)
                    swept += 1
        return swept

    return _do("clean", folder, attempt)


def find_files(location: str, suffixes: tuple[str, ...]) -> list[str]:
    """Files a person may mean by a location: the file itself, what a glob matches, or a folder's files.

    Args:
        location: file, glob or folder, local or remote.
        suffixes: endings that a folder's files must have, in lower case, which the files' own need not be; hidden names
            and names that begin with `_` do not count there, as everywhere in the Parquet world.

    Returns:
        Absolute locations, sorted; empty where nothing is there.
    """
    if _protocol(location) in ("http", "https"):
        # A web server has no folders, and `?` begins a query there.
        return [location]

    def attempt() -> list[str]:
        fs, path = _filesystem(location)
        fs.invalidate_cache()
        try:
            kind = fs.info(path)["type"]
        except FileNotFoundError:
            found = fs.glob(path) if any(sign in path for sign in "*?[") else []
            found = [name for name in found if fs.isfile(name)]
        else:
            found = [path] if kind == "file" else [n for n in fs.find(path) if _is_data(n, path, suffixes)]
        if not is_remote(location):
            return sorted(str(name) for name in found)
        return sorted(str(fs.unstrip_protocol(name)) for name in found)

    return _do("list", location, attempt)


def _is_data(name: str, folder: str, suffixes: tuple[str, ...]) -> bool:
    inner = name[len(folder) :].strip("/").split("/")
    return name.lower().endswith(suffixes) and not any(part.startswith((".", "_")) for part in inner)
