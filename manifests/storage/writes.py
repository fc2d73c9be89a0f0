"""Writing, copying and removing files: what is written appears whole or not at all.

Locally a file is written under a hidden temporary name that is synced and then renamed; on object stores it is
a single put, which is atomic there. What a function here has written when it returns survives a loss of power: the
file, its name, and the folders that were made for it (infra/adr/0020-power-loss.md).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from manifests.errors import StorageError
from manifests.storage import retries
from manifests.storage.locations import filesystem, is_remote, join, local_path

#: A file system that cannot sync folders says one of these; a folder that must not be read cannot be opened for it.
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES})


@contextlib.contextmanager
def _replacing(url: str, lasting: bool = True) -> Iterator[IO[bytes]]:
    """A local file under a hidden name; at the end it is synced and gets its own name in one step.

    Args:
        lasting: sync the folder too; else the caller does that, once for several files.
    """
    target = Path(local_path(url))
    _make_folder(target.parent)
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
    if lasting:
        _sync_folder(target.parent)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it; each one's name is synced in the folder above."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Make the names that stand in a folder survive a loss of power, and those that are gone stay away."""
    try:
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


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
    _put(local_file, url, lasting=True)


def _put(local_file: str, url: str, lasting: bool) -> None:
    os.stat(local_file)

    def attempt() -> None:
        if not is_remote(url):
            with open(local_file, "rb") as source, _replacing(url, lasting) as file:
                shutil.copyfileobj(source, file, 16 << 20)
            return
        fs, path = filesystem(url)
        fs.put_file(local_file, path)

    retries.request("write", url, attempt)


def put_together(local_files: Sequence[str], folder: str) -> None:
    """Copy local files under their own names into one folder, each as `put_atomic` does; all of them last at the end.

    Raises:
        FileNotFoundError: there is no such local file.
        StorageError: the storage refused.
    """
    for local_file in local_files:
        _put(local_file, join(folder, os.path.basename(local_file)), lasting=False)
    if not is_remote(folder):
        retries.request("write", folder, lambda: _sync_folder(Path(local_path(folder))))


def copy_together(urls: Sequence[str], folder: str) -> None:
    """Copy files within one storage as `put_together` does.

    Raises:
        StorageError: the storage refused.
    """
    if not is_remote(folder):
        put_together([local_path(url) for url in urls], folder)
        return
    for url in urls:
        _copy(url, join(folder, url.rpartition("/")[2]))


def _copy(url: str, target: str) -> None:
    def attempt() -> None:
        fs, path = filesystem(url)
        fs.cp_file(path, filesystem(target)[1])

    retries.request("write", target, attempt)


def remove(url: str, recursive: bool = False, lasting: bool = False) -> None:
    """Remove a file, or a folder with `recursive`; nothing happens where there is none.

    Args:
        lasting: when this returns, no loss of power brings it back: what is written next may rely on that.
    """

    def attempt() -> None:
        fs, path = filesystem(url)
        fs.invalidate_cache(path)
        with contextlib.suppress(FileNotFoundError):
            fs.rm(path, recursive=recursive)
        if lasting and not is_remote(url):
            # Also where it is gone already: whoever removed it may have been killed before this.
            with contextlib.suppress(FileNotFoundError):
                _sync_folder(Path(path).parent)

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
