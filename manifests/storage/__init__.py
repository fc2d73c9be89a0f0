"""The only place that touches storage: a thin package over fsspec for local folders and object stores alike.

`from manifests import storage` is how everybody else reaches it. Locations are plain local paths or anything
fsspec knows (`file://`, `s3://`, `memory://`, `https://` …). What is written appears whole or not at all. All
functions are stateless, so any process of the cluster may call them.

A fault that passes by itself is tried again with growing waits (`retries.py` says which and how long). A missing
file stays a `FileNotFoundError` for readers, because they ask for it; everything else that storage refuses
becomes a `StorageError` that names the location and what to do.
"""

from __future__ import annotations

from manifests.storage.exclusive import create, is_exclusive
from manifests.storage.finding import MARKER, Found, find
from manifests.storage.listing import Entry, exists, free_bytes, list_names, list_tree
from manifests.storage.locations import (
    absolute,
    folder_of,
    is_absolute,
    is_remote,
    join,
    local_path,
    resolve,
    shortened,
)
from manifests.storage.ownership import in_words, others_in, same_place
from manifests.storage.reads import fetch, open_arrow, open_read, read_bytes, read_range
from manifests.storage.retries import passes, patience
from manifests.storage.temporary import temporary_folder
from manifests.storage.writes import (
    copy_together,
    fenced,
    put_atomic,
    put_together,
    remove,
    sweep,
    write_atomic,
    writing,
)

__all__ = [
    "MARKER",
    "Entry",
    "Found",
    "absolute",
    "copy_together",
    "create",
    "exists",
    "fenced",
    "fetch",
    "find",
    "folder_of",
    "free_bytes",
    "in_words",
    "is_absolute",
    "is_exclusive",
    "is_remote",
    "join",
    "list_names",
    "list_tree",
    "local_path",
    "open_arrow",
    "open_read",
    "others_in",
    "passes",
    "patience",
    "put_atomic",
    "put_together",
    "read_bytes",
    "read_range",
    "remove",
    "resolve",
    "same_place",
    "shortened",
    "sweep",
    "temporary_folder",
    "write_atomic",
    "writing",
]
