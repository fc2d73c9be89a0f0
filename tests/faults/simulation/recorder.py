"""Writes down, in order, what a process does to the files below a folder: made folders, writes, syncs, renames.

    {"op": "mkdir", "path": "out"}            {"op": "sync", "path": "out"}
    {"op": "create", "path": "out/a"}         {"op": "rename", "path": "out/a", "to": "out/b"}
    {"op": "write", "path": "out/a", "content": SHA-256}        {"op": "unlink" | "rmdir" | "link", …}

Python's own calls are wrapped, so storage and commits are recorded as they are. Several processes may share one record:
an operation and its line are one step under a lock. What a file holds is noted when it is synced, renamed or linked;
before that nothing of it is certain anyway. A record is whole where its end is what the real folder holds then.

`tests/faults/recording/sitecustomize.py` loads this file into every process of a job, so it imports nothing but
Python's own modules.
"""

from __future__ import annotations

import builtins
import fcntl
import hashlib
import io
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

LOG, CONTENTS = "operations.jsonl", "contents"

_thread = threading.RLock()


class Recorder:
    """Records what this process does below `root` into the folder `record`."""

    def __init__(self, root: str, record: str) -> None:
        self._root = os.path.realpath(root)
        self._record = record
        self._real = {name: getattr(os, name) for name in _WRAPPED}
        self._open = builtins.open
        os.makedirs(os.path.join(record, CONTENTS), exist_ok=True)

    def install(self) -> None:
        """From now on."""
        for name in _WRAPPED:
            setattr(os, name, getattr(self, f"_{name}"))
        builtins.open = io.open = self._open_file  # type: ignore[assignment]

    def remove(self) -> None:
        """Not any more."""
        for name, call in self._real.items():
            setattr(os, name, call)
        builtins.open = io.open = self._open

    @contextmanager
    def _step(self) -> Iterator[list[dict[str, str]]]:
        """An operation and its lines as one step; nothing is noted of one that fails."""
        with _thread, self._open(os.path.join(self._record, LOG), "ab", buffering=0) as log:
            fcntl.flock(log, fcntl.LOCK_EX)
            lines: list[dict[str, str]] = []
            yield lines
            log.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))

    def _inside(self, path: Any, dir_fd: int | None = None) -> str | None:
        """The path below the root; None for others."""
        if isinstance(path, int):
            full = os.readlink(f"/proc/self/fd/{path}")
        else:
            folder = os.getcwd() if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
            full = os.path.normpath(os.path.join(folder, os.fsdecode(path)))
            full = os.path.join(os.path.realpath(os.path.dirname(full)), os.path.basename(full))
        return full[len(self._root) + 1 :] if full.startswith(f"{self._root}/") else None

    def _content(self, inside: str) -> dict[str, str]:
        with self._open(os.path.join(self._root, inside), "rb") as file:
            data = file.read()
        name = hashlib.sha256(data).hexdigest()
        target = os.path.join(self._record, CONTENTS, name)
        if not os.path.exists(target):
            with self._open(f"{target}.{os.getpid()}", "wb") as kept:
                kept.write(data)
            self._real["replace"](f"{target}.{os.getpid()}", target)
        return {"op": "write", "path": inside, "content": name}

    def _plain(self, op: str, call: Callable[..., Any], path: Any, dir_fd: int | None, *given: Any) -> None:
        inside = self._inside(path, dir_fd)
        if inside is None:
            call(path, *given, dir_fd=dir_fd)
            return
        with self._step() as lines:
            call(path, *given, dir_fd=dir_fd)
            lines.append({"op": op, "path": inside})

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self._plain("mkdir", self._real["mkdir"], path, dir_fd, mode)

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._plain("rmdir", self._real["rmdir"], path, dir_fd)

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._plain("unlink", self._real["unlink"], path, dir_fd)

    _remove = _unlink

    def _two(self, op: str, call: Callable[..., Any], source: Any, target: Any, **given: Any) -> None:
        inside, to = self._inside(source), self._inside(target)
        if inside is None or to is None:
            call(source, target, **given)
            return
        with self._step() as lines:
            content = self._content(inside)
            call(source, target, **given)
            lines += [content, {"op": op, "path": inside, "to": to}]

    def _replace(self, source: Any, target: Any, **given: Any) -> None:
        self._two("rename", self._real["replace"], source, target, **given)

    def _rename(self, source: Any, target: Any, **given: Any) -> None:
        self._two("rename", self._real["rename"], source, target, **given)

    def _link(self, source: Any, target: Any, **given: Any) -> None:
        self._two("link", self._real["link"], source, target, **given)

    def _fsync(self, file: Any) -> None:
        number = file if isinstance(file, int) else file.fileno()
        inside = self._inside(number)
        if inside is None and os.readlink(f"/proc/self/fd/{number}") != self._root:
            self._real["fsync"](number)
            return
        with self._step() as lines:
            self._real["fsync"](number)
            if inside is not None and os.path.isfile(os.path.join(self._root, inside)):
                lines.append(self._content(inside))
            lines.append({"op": "sync", "path": inside or ""})

    def _open_file(self, file: Any, mode: str = "r", *given: Any, **more: Any) -> Any:
        inside = None if isinstance(file, int) or not set(mode) & set("wxa+") else self._inside(file)
        if inside is None:
            return self._open(file, mode, *given, **more)
        with self._step() as lines:
            opened = self._open(file, mode, *given, **more)
            lines.append({"op": "create", "path": inside})
        return opened


_WRAPPED = ("mkdir", "rmdir", "unlink", "remove", "replace", "rename", "link", "fsync")


@contextmanager
def recording(root: str, record: str) -> Iterator[None]:
    """Record what this process does below a folder within the block."""
    recorder = Recorder(root, record)
    recorder.install()
    try:
        yield
    finally:
        recorder.remove()
