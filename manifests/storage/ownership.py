"""Whose a folder is: what lies there that this program did not write, and would be in the way or in danger."""

from __future__ import annotations

import os
from collections.abc import Collection

from manifests.storage.listing import list_names
from manifests.storage.locations import is_remote, local_path

#: What operating systems leave behind by themselves. It makes no folder somebody's.
_LITTER = frozenset({"lost+found", "Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir"})

#: Names that a message shows.
_SHOWN = 3


def others_in(folder: str, ours: Collection[str] = ()) -> list[str]:
    """Names in a folder that are neither ours, nor hidden, nor litter of an operating system; sorted.

    Raises:
        StorageError: the storage refused.
    """
    return [name for name in list_names(folder) if name not in {*ours, *_LITTER} and not name.startswith(".")]


def same_place(one: str, other: str) -> bool:
    """True where two locations are one, through links too."""
    return _place(one) == _place(other)


def _place(url: str) -> str:
    return url.rstrip("/") if is_remote(url) else os.path.realpath(local_path(url))


def in_words(names: Collection[str]) -> str:
    """Some names for a person: the first ones, and how many there are besides."""
    shown = sorted(names)[:_SHOWN]
    more = f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else ""
    return f"{', '.join(shown)}{more}"
