"""Every error this project raises on purpose, in one tree.

    KandinskyBatchError
    ├── UsageError              the command line, the config or the manifest file is wrong; exit code 2
    │   ├── ManifestError       the manifest cannot be read at all (missing, not Parquet, unusable column)
    │   ├── CheckpointError     a checkpoint is missing, incomplete or not Kandinsky 2.1
    │   └── DeviceError         a process sees another device than Ray has given it
    ├── StorageError            the output cannot be written or read
    ├── IncompleteRunError      the run ended before every request was accounted for; exit code 1
    ├── TooManyFailedError      the run ended because too many of its rows failed; exit code 1
    └── RowError                one sample failed; becomes `status` and `error_message` in the index, never an exit

A `RowError` never leaves the stage that met it: stages turn it into data.
"""

from __future__ import annotations

import re
from typing import Literal

#: What the index column `status` may hold: "success" or the stage that the sample failed in.
RowStatus = Literal[
    "success", "failed_to_validate", "failed_to_load", "failed_to_embed", "failed_to_generate", "failed_to_encode"
]
SUCCESS: RowStatus = "success"
#: Of a row that the plan cannot make, whatever is tried.
REJECTED: RowStatus = "failed_to_validate"


class KandinskyBatchError(Exception):
    """Base of all errors raised on purpose; its text is written for the person who started the job."""


class UsageError(KandinskyBatchError):
    """The command line, the config or an input as a whole cannot be used; nothing was computed."""


class ManifestError(UsageError):
    """A manifest file is missing, unreadable, or has a column that no row could be read from."""


class CheckpointError(UsageError):
    """A checkpoint folder is missing, incomplete, or holds another model."""


class DeviceError(UsageError):
    """A process cannot use the device it was given, and no other process of this job could."""


class StorageError(KandinskyBatchError):
    """Reading or writing the output storage failed for good."""


class IncompleteRunError(KandinskyBatchError):
    """The engine stopped although some requests are neither written nor failed."""


class TooManyFailedError(KandinskyBatchError):
    """More rows have failed than the person is ready to lose (jobs/limits/failed_rows.py)."""


class RowError(KandinskyBatchError):
    """One sample cannot be made.

    Args:
        status: which stage failed it, one of `RowStatus`.
        message: the reason in words that name the column and what to do.
    """

    def __init__(self, status: RowStatus, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def general(message: str) -> str:
    """What many rows share of a message: what stands in quotes and brackets, and numbers, are left out."""
    kind, before = message.split("; ")[0], ""
    while kind != before:  # from the innermost bracket on
        kind, before = re.sub(r"\([^()]*\)", "…", kind), kind
    return re.sub(r"\d+", "#", re.sub(r"'[^']*'|\"[^\"]*\"", "…", kind))


def first_line(error: Exception) -> str:
    """What a library's error says on its first line, or its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
