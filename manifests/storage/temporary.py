"""This machine's folder for temporary files, where files lie on their way to storage; it may fill up."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Iterator
from typing import IO

from manifests.errors import StorageError

#: What a disk without room, or a spent quota, answers.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[str]:
    """A new folder, which goes with the block.

    Raises:
        StorageError: there is no room in it.
    """
    with _told(), tempfile.TemporaryDirectory(prefix=prefix) as folder:
        yield folder


@contextlib.contextmanager
def temporary_file() -> Iterator[IO[bytes]]:
    """A new file with a name, which goes with the block.

    Raises:
        StorageError: there is no room for it.
    """
    with _told(), tempfile.NamedTemporaryFile(prefix="kandinsky-batch-") as file:
        yield file.file


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise StorageError(
            f"the folder for temporary files, {tempfile.gettempdir()}, has no room: {error}; free some space there, or "
            "set TMPDIR to a folder with room, on all nodes"
        ) from error
