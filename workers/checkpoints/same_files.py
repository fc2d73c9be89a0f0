"""Whether two components of a checkpoint are one and the same: by the bytes of their files, not by their names."""

from __future__ import annotations

import filecmp
from pathlib import Path


def same_files(one: Path, other: Path) -> bool:
    """True where two folders hold files of the same names and bytes, one at least.

    Sizes are compared before anything is read, so that weights are read only where they are likely to be equal.
    """
    names = _names(one)
    if not names or names != _names(other):
        return False
    pairs = [(one / name, other / name) for name in names]
    if any(a.stat().st_size != b.stat().st_size for a, b in pairs):
        return False
    return all(a.samefile(b) or filecmp.cmp(a, b, shallow=False) for a, b in pairs)


def _names(folder: Path) -> list[str]:
    # Hidden files are notes of whoever fetched the others.
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(name.as_posix() for name in files if not any(part.startswith(".") for part in name.parts))
