"""Writing a file only where there is none: of several writers of one name exactly one is told that it was first.

Locally a synced file gets its name by a hard link, which fails where the name is taken. Object stores are asked by the
condition `If-None-Match: *` (or what their fsspec package makes of `mode="create"`); not all of them know it, some
packages drop it in silence, and so `is_exclusive` finds out before anybody relies on it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from pathlib import Path

from manifests.errors import StorageError
from manifests.storage import retries
from manifests.storage.locations import filesystem, is_remote, join, local_path
from manifests.storage.reads import read_bytes
from manifests.storage.writes import make_folder, remove, sync_folder

#: A file system without hard links says one of these.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})

#: The status and the code of an answer that the condition was not met.
_REFUSED_STATUS, _REFUSED_CODE = 412, "PreconditionFailed"


def is_exclusive(folder: str) -> bool:
    """True where `create` keeps its word in this folder, which on an object store is tried with a file of no worth."""
    if not is_remote(folder):
        return True
    url = join(folder, f".{uuid.uuid4().hex}.tmp")
    try:
        # The second is refused where the condition is known. It has other bytes: the first one's would be taken for an
        # answer that was lost on the way.
        return create(url, b"first") and not create(url, b"second")
    except (StorageError, TypeError, ValueError, NotImplementedError):
        return False
    finally:
        with contextlib.suppress(StorageError):
            remove(url)


def create(url: str, data: bytes) -> bool:
    """Write a file where there is none, whole or not at all; False where there is one, which stays as it is.

    Args:
        data: of this writer alone: a request whose answer was lost is known again by it.

    Raises:
        StorageError: the storage refused for another reason.
    """

    def attempt() -> bool:
        if not is_remote(url):
            return _create_local(Path(local_path(url)), data)
        fs, path = filesystem(url)
        try:
            fs.pipe_file(path, data, mode="create")
        except Exception as error:  # every backend has exceptions of its own
            if _is_refusal(error):
                return False
            raise
        return True

    if retries.request("write", url, attempt):
        return True
    with contextlib.suppress(FileNotFoundError):
        return read_bytes(url) == data
    return False


def _create_local(target: Path, data: bytes) -> bool:
    make_folder(target.parent)
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}.tmp"
    try:
        _write_synced(temporary, data)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            try:
                _write_synced(target, data)
            except FileExistsError:
                return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    sync_folder(target.parent)
    return True


def _write_synced(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _is_refusal(error: BaseException | None) -> bool:
    while error is not None:
        response = getattr(error, "response", None)
        code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
        status = getattr(error, "status", getattr(error, "code", None))
        if isinstance(error, FileExistsError) or code == _REFUSED_CODE or status == _REFUSED_STATUS:
            return True
        error = error.__cause__
    return False
