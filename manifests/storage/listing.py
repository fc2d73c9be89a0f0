"""Listing: what exists, the names in a folder, the files below it, and the files a person may mean by a location."""

from __future__ import annotations

import posixpath
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manifests.storage import retries
from manifests.storage.locations import filesystem, is_remote, local_path
from manifests.storage.writes import is_temporary


def exists(url: str) -> bool:
    """True where there is a file or folder.

    Asks for the entry instead of fsspec's `exists`, which takes a refused request for an absent file.
    """

    def attempt() -> bool:
        fs, path = filesystem(url)
        fs.invalidate_cache(posixpath.dirname(path))
        try:
            fs.info(path)
        except FileNotFoundError:
            return False
        return True

    return retries.request("read", url, attempt)


def free_bytes(folder: str) -> int | None:
    """Free space where a folder is or will be made; None where nobody can say, as on object stores."""
    if is_remote(folder):
        return None
    place = Path(local_path(folder))
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


def list_names(folder: str) -> list[str]:
    """Names in a folder, sorted; empty where there is no such folder. Temporary files are not named."""

    def attempt() -> list[str]:
        fs, path = filesystem(folder)
        fs.invalidate_cache(path)
        try:
            entries = fs.ls(path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = {posixpath.basename(entry.rstrip("/")) for entry in entries}
        return sorted(name for name in names if name and not is_temporary(name))

    return retries.request("list", folder, attempt)


@dataclass(frozen=True)
class Entry:
    """A file as its storage lists it.

    Attributes:
        size: in bytes; None where the storage does not say.
        version: another one after each write, as far as the storage tells (by ETag, time or size).
    """

    size: int | None
    version: str


def list_tree(folder: str) -> dict[str, Entry]:
    """Every file below a folder by its path inside it; empty where there is no such folder.

    Raises:
        StorageError: the storage refused.
    """

    def attempt() -> dict[str, Entry]:
        fs, path = filesystem(folder)
        fs.invalidate_cache(path)
        try:
            found = fs.find(path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {name[len(path) :].lstrip("/"): Entry(entry.get("size"), _state(entry)) for name, entry in found.items()}

    return retries.request("list", folder, attempt)


def _state(entry: dict[str, Any]) -> str:
    """What tells one state of a file from the next, by the names that the backends of fsspec have for it."""
    for name in ("ETag", "etag", "md5Hash", "content_md5", "mtime", "created", "LastModified"):
        if entry.get(name):
            return str(entry[name])
    return ""
