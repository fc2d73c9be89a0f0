"""Files that rows name, read side by side, none of them for ever.

A file may lie behind a mount that hangs, on a server that says nothing, or be a pipe that nobody writes into. Nothing
in Python ends such a read, so it is done by a thread that is left to itself when the time is up: its row fails, and the
batch goes on with another thread. Threads are kept for the next files, because connections belong to them.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
import threading
import time
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from manifests import storage

#: Seconds that reading one file may take, where nobody says otherwise.
LIMIT_S = 60.0

#: Files of one batch that are read at the same time.
FETCH_THREADS = 8

#: A server that row after row may name is nobody's own storage: so long it is asked again while it refuses.
FOREIGN_PATIENCE_S = 10.0

#: After so many files in a row that did not come from one place, the others there get a tenth of the time, and one try.
MANY_LOST = 4

#: Threads that wait for work; more are let go.
_MOST_IDLE = 32


class UnusableError(Exception):
    """An image cannot be had; the text is the reason, to be completed with the column and the location."""


Content = bytes | UnusableError


@dataclass(frozen=True)
class _Read:
    """One file to read, and whom to tell."""

    path: str
    patience_s: float
    done: SimpleQueue[tuple[str, Content]]


#: Files in a row that did not come, by place.
_lost: Counter[str] = Counter()

#: Threads that wait for work, each by its queue.
_idle: deque[SimpleQueue[_Read]] = deque()


def fetch(paths: Collection[str], limit_s: float) -> dict[str, Content]:
    """Read every location once; what cannot be read within the limit, or not at all, is a reason instead.

    Args:
        limit_s: seconds that one file may take.
    """
    waiting = deque(sorted(paths))
    deadlines: dict[str, float] = {}
    done: SimpleQueue[tuple[str, Content]] = SimpleQueue()
    contents: dict[str, Content] = {}
    while waiting or deadlines:
        while waiting and len(deadlines) < FETCH_THREADS:
            path = waiting.popleft()
            share = 0.1 if _lost[_place(path)] >= MANY_LOST else 1.0
            deadlines[path] = time.monotonic() + limit_s * share
            _start(_Read(path, _patience(path, limit_s) if share == 1.0 else 0.0, done))
        try:
            path, content = done.get(timeout=max(0.0, min(deadlines.values()) - time.monotonic()))
        except Empty:
            late = [path for path, deadline in deadlines.items() if deadline <= time.monotonic()]
            for path in late:
                del deadlines[path]
                _lost[_place(path)] += 1
                contents[path] = UnusableError(
                    f"did not come within {limit_s:g} s; see that what it lies on answers, or give it more time with "
                    "--input-timeout"
                )
        else:
            if path in deadlines:
                del deadlines[path]
                contents[path] = content
    return contents


def _start(read: _Read) -> None:
    try:
        tasks = _idle.pop()
    except IndexError:
        tasks = SimpleQueue()
        # A daemon, because nobody could wait for one that never comes back.
        threading.Thread(target=_serve, args=(tasks,), name="fetch", daemon=True).start()
    tasks.put(read)


def _serve(tasks: SimpleQueue[_Read]) -> None:
    while True:
        read = tasks.get()
        content = _read(read.path, read.patience_s)
        kept = len(_idle) < _MOST_IDLE
        if kept:
            # Before anybody hears of the file, who would start another thread for the next one.
            _idle.append(tasks)
        read.done.put((read.path, content))
        if not kept:
            return


def _place(path: str) -> str:
    """What files that do not come have in common: a server, or a folder."""
    if storage.is_remote(path):
        return "/".join(path.split("/", 3)[:3])
    return posixpath.dirname(path)


def _patience(path: str, limit_s: float) -> float:
    return min(limit_s, FOREIGN_PATIENCE_S) if path.startswith(("http://", "https://")) else limit_s


def _read(path: str, patience_s: float) -> Content:
    if path.startswith("data:"):
        return UnusableError("is a data: URI that holds no base64; write it as data:image/png;base64,…")
    try:
        if not storage.is_remote(path):
            path = _as_meant(path)
            _refuse_special(path)
        with storage.patience(patience_s):
            content = storage.read_bytes(path)
    except UnusableError as error:
        return error
    except Exception as error:
        # Storage wraps what the file system said; the reason a person can act on is underneath.
        cause = error.__cause__ or error
        if storage.passes(cause):
            _lost[_place(path)] += 1
        if isinstance(cause, FileNotFoundError):
            if re.search(r"(^|/)[A-Za-z]:\\", path):
                return UnusableError("is a path of a Windows machine; give one that the workers can read")
            return UnusableError("does not exist; correct the path, or put it where every node can read it")
        if isinstance(cause, PermissionError):
            return UnusableError("may not be read by the workers; change its permissions or the storage credentials")
        if isinstance(cause, IsADirectoryError):
            return UnusableError("is a folder; give the path of an image file")
        words = storage.shortened(f"{type(cause).__name__}: {cause}")
        return UnusableError(f"cannot be read ({words}); check the location and its credentials")
    _lost.pop(_place(path), None)
    return content


def _as_meant(location: str) -> str:
    """The path of a file of this machine; backslashes of Windows part folders where they are not part of a name."""
    path = storage.local_path(location)
    other = path.replace("\\", "/")
    return path if os.path.lexists(path) or not os.path.lexists(other) else other


def _refuse_special(path: str) -> None:
    """Refuse what is read for ever: pipes, sockets, devices.

    Raises:
        UnusableError: it is one.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # reading it says why
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise UnusableError(f"is {kind} and not a file; give the path of an image file")
