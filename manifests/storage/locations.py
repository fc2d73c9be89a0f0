"""Locations: plain local paths, or anything that fsspec knows (`file://`, `s3://`, `memory://`, `https://` …)."""

from __future__ import annotations

import os
import posixpath
from typing import Any
from urllib.parse import unquote

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from manifests.errors import UsageError

#: Longer locations are shown by their beginning and their end: signed URLs, and images that were put in place of one.
_MOST_SHOWN = 200


def shortened(text: str) -> str:
    """A location, or words that hold one, for a message."""
    if len(text) <= _MOST_SHOWN:
        return text
    return f"{text[:120]}…{text[-40:]} ({len(text):,} characters)"


def filesystem(url: str) -> tuple[Any, str]:
    """The file system of a location and the path inside it.

    A `file:` URI may be written as `Path.as_uri` does, with %20 and such, which may be part of a name too.

    Raises:
        UsageError: a relative path, and the folder that it counts from is gone.
    """
    if is_remote(url):
        fs, path = url_to_fs(url)
        return fs, path
    # Not by fsspec's way from locations, to which `::` in a file's name would be a chain of file systems.
    local = LocalFileSystem()
    try:
        path = local._strip_protocol(url)
    except FileNotFoundError as error:
        raise UsageError(
            f"{url} is a relative path, and the folder that this was started in is gone; go to one that is there, or "
            "give an absolute path"
        ) from error
    plain = unquote(path) if url.startswith("file:") else path
    return local, path if plain == path or os.path.lexists(path) or not os.path.lexists(plain) else plain


def protocol(url: str) -> str:
    """What stands before `://`, for chained locations the outermost; empty for a plain path."""
    if "://" not in url or url.startswith(("/", ".", "~")):
        return ""
    return url.split("://", 1)[0].split("::", 1)[0]


def is_remote(url: str) -> bool:
    """True unless the location is a path of this machine."""
    return protocol(url) not in ("", "file", "local")


def local_path(url: str) -> str:
    """The plain absolute path of a location that is not remote."""
    return str(filesystem(url)[1])


def absolute(url: str) -> str:
    """The location in a form that any working directory understands; remote ones stay as they are."""
    return url if is_remote(url) else local_path(url)


def join(url: str, *parts: str) -> str:
    """Append path parts to a location."""
    joined = url
    for part in parts:
        bare = joined.endswith(("://", "/"))
        joined = f"{joined}{part.lstrip('/')}" if bare else f"{joined}/{part.lstrip('/')}"
    return joined


def folder_of(url: str) -> str:
    """The folder a file lies in."""
    head, slashes, tail = url.partition("://")
    if not slashes:
        return posixpath.dirname(url)
    return f"{head}://{posixpath.dirname(tail)}"


def is_absolute(location: str) -> bool:
    """True for absolute paths and for anything with a protocol."""
    return location.startswith("/") or "://" in location


def resolve(location: str, base: str) -> str:
    """A location as seen from the folder `base`; absolute paths and anything with `://` stay unchanged."""
    if is_absolute(location):
        return location
    head, slashes, tail = base.partition("://")
    if not slashes:
        return posixpath.normpath(join(base, location))
    return f"{head}://{posixpath.normpath(join(tail, location)) if tail else posixpath.normpath(location)}"
