"""Writing, copying and removing files: what is written appears whole or not at all.

Locally a file is written under a hidden temporary name that is synced and then renamed; on object stores it is
a single put, which is atomic there. What a function here has written when it returns survives a loss of power: the
file, its name, and the folders that were made for it (infra/adr/0020-power-loss.md).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import IO

from manifests.errors import StorageError
from manifests.storage import retries
from manifests.storage.locations import filesystem, is_remote, join, local_path
from manifests.storage.temporary import temporary_file

#: A file system that cannot sync folders says one of these; a folder that must not be read cannot be opened for it.
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES})


#: Asked right before anything is replaced or removed by this thread.
_fence: ContextVar[Callable[[], None] | None] = ContextVar("fence", default=None)


@contextlib.contextmanager
def fenced(check: Callable[[], None]) -> Iterator[None]:
    """Within the block this thread replaces and removes nothing without asking.

    Args:
        check: raises where what lies there is not this process's to change any more.
    """
    token = _fence.set(check)
    try:
        yield
    finally:
        _fence.reset(token)


def _ask() -> None:
    check = _fence.get()
    if check is not None:
        check()


@contextlib.contextmanager
def _replacing(url: str, lasting: bool = True) -> Iterator[IO[bytes]]:
    """A local file under a hidden name; at the end it is synced and gets its own name in one step.

    Args:
        lasting: sync the folder too; else the caller does that, once for several files.
    """
    target = Path(local_path(url))
    make_folder(target.parent)
    # The random part keeps a writer that was taken for dead from mixing its bytes with its successor's.
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _ask()
        os.replace(temporary, target)
    except FileNotFoundError:
        # Whoever took this job's lease over has removed what it was about to put in place.
        _ask()
        raise
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if lasting:
        sync_folder(target.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; each one's name is synced in the folder above."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
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
            with temporary_file() as file:
                yield file
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
        _ask()
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
        _ask()
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
        retries.request("write", folder, lambda: sync_folder(Path(local_path(folder))))


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
        _ask()
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
        _ask()
        with contextlib.suppress(FileNotFoundError):
            fs.rm(path, recursive=recursive)
        if lasting and not is_remote(url):
            # Also where it is gone already: whoever removed it may have been killed before this.
            with contextlib.suppress(FileNotFoundError):
                sync_folder(Path(path).parent)

    retries.request("remove", url, attempt)


def sweep(folder: str, older_than_s: float = 3600.0, below: bool = False) -> int:
    """Remove temporary files that killed writers left in a local folder; returns how many there were.

    Args:
        older_than_s: and nobody has written to them for so long, by the clock of the disk they lie on.
        below: in all folders below it, too.
    """
    if is_remote(folder) or not os.path.isdir(local_path(folder)):
        return 0

    def attempt() -> int:
        left = [
            os.path.join(place, name)
            for place, _, names in itertools.islice(os.walk(local_path(folder)), None if below else 1)
            for name in filter(is_temporary, names)
        ]
        return sum(_remove_old(path, older_than_s) for path in left)

    return retries.request("clean", folder, attempt)


def _remove_old(path: str, older_than_s: float) -> bool:
    probe = os.path.join(os.path.dirname(path), f".{uuid.uuid4().hex}.tmp")
    with contextlib.suppress(FileNotFoundError), open(probe, "xb") as new:
        os.unlink(probe)
        # This machine's clock may be an hour from that of the server that the folder lies on.
        if os.fstat(new.fileno()).st_mtime - os.stat(path).st_mtime >= older_than_s:
            os.unlink(path)
            return True
    return False


def is_temporary(name: str) -> bool:
    """True for the name of a file that is still being written, or whose writer was killed."""
    return name.startswith(".") and name.endswith(".tmp")
