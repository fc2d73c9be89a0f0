"""Writing, copying and removing files: what is written appears whole or not at all.

Locally a file is written under a hidden temporary name that is synced and then renamed; on object stores it is
a single put, which is atomic there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from manifests.errors import StorageError
from manifests.storage import retries
from manifests.storage.locations import filesystem, is_remote, local_path


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
        fs, path = filesystem(url)
        fs.pipe_file(path, data)

    retries.request("write", url, attempt)


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
        fs, path = filesystem(url)
        fs.put_file(local_file, path)

    retries.request("write", url, attempt)


def copy(url: str, target: str) -> None:
    """Copy a file within one storage so that readers of the target see all of it or none; replaces what was there.

    Raises:
        StorageError: the storage refused.
    """
    if not is_remote(url):
        put_atomic(local_path(url), target)
        return

    def attempt() -> None:
        fs, path = filesystem(url)
        fs.cp_file(path, filesystem(target)[1])

    retries.request("write", target, attempt)


def remove(url: str, recursive: bool = False) -> None:
    """Remove a file, or a folder with `recursive`; nothing happens where there is none."""

    def attempt() -> None:
        fs, path = filesystem(url)
        fs.invalidate_cache(path)
        with contextlib.suppress(FileNotFoundError):
            fs.rm(path, recursive=recursive)

    retries.request("remove", url, attempt)


def sweep(folder: str, older_than_s: float = 3600.0) -> int:
    """Remove temporary files that killed writers left in a local folder; returns how many there were."""
    if is_remote(folder) or not os.path.isdir(local_path(folder)):
        return 0

    def attempt() -> int:
        swept = 0
        for entry in os.scandir(local_path(folder)):
            with contextlib.suppress(FileNotFoundError):
                if is_temporary(entry.name) and time.time() - entry.stat().st_mtime > older_than_s:
                    os.unlink(entry.path)
                    swept += 1
        return swept

    return retries.request("clean", folder, attempt)


def is_temporary(name: str) -> bool:
    """True for the name of a file that is still being written, or whose writer was killed."""
    return name.startswith(".") and name.endswith(".tmp")
