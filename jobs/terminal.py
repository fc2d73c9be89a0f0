"""The standard streams of a script, whatever the shell made of them: closed, in ASCII, or a pipe that nobody reads.

A run of hours must not end because of what it wanted to say.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any, TextIO


class LastingFile(io.FileIO):
    """A file by its number; when its reader has gone (`| head`), what is written to it goes nowhere."""

    def write(self, data: Any, /) -> int:
        """Write, if anybody reads."""
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)


def lasting(number: int, encoding: str, closefd: bool = False) -> TextIO:
    """A text stream on a file's number that neither a closed pipe nor a letter outside its encoding can break."""
    file = LastingFile(number, "w", closefd=closefd)
    return io.TextIOWrapper(
        io.BufferedWriter(file), encoding, errors="backslashreplace", line_buffering=file.isatty() or number == 2
    )


def steady_streams() -> None:
    """Make this process's own streams lasting; those that something else has replaced, as a test does, stay."""
    _open_closed()
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            continue
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.flush()
        setattr(sys, name, lasting(number, getattr(stream, "encoding", None) or "utf-8"))


def _open_closed() -> None:
    """Give the numbers of closed streams to the null device, before a file or a socket gets them."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free, which is this one.
            os.open(os.devnull, os.O_RDWR)
