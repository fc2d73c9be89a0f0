"""Which source a process imports: the script's, or what else lies on a node's path under our packages' names.

It imports nothing of ours and little of anybody's, because it goes to nodes by value (jobs/engine/connection.py): what
they would import may be what is wrong.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

#: Everything that a worker imports of ours.
PACKAGES = ("jobs", "manifests", "workers")


def find_source() -> tuple[str, str]:
    """The folder that this process imports our packages from, and a digest of what is in them.

    Only modules count, by name and content, so that a checkout and what was installed from it are the same. "" for the
    folder where a package is not found; several, if they do not lie side by side.
    """
    folders, content = [], hashlib.sha256()
    for package in PACKAGES:
        # Finds a package without importing it.
        found = importlib.util.find_spec(package)
        for place in sorted(found.submodule_search_locations or ()) if found else ():
            root = Path(place)
            folders.append(str(root.parent))
            for path in sorted(root.rglob("*.py")):
                content.update(f"{package}/{path.relative_to(root).as_posix()}\0".encode())
                content.update(hashlib.sha256(path.read_bytes()).digest())
    return " and ".join(dict.fromkeys(folders)), content.hexdigest()[:12]


@lru_cache(maxsize=1)
def own_source() -> tuple[str, str]:
    """`find_source`, once for this process."""
    return find_source()


def difference(where: str, theirs: tuple[str, str], ours: tuple[str, str]) -> str | None:
    """Why work must not be done there, in words for the person who started the job; None where the source is the same.

    Args:
        where: the process or node, as people call it.
        theirs, ours: what `find_source` says there and in the script.
    """
    if theirs[1] == ours[1]:
        return None
    if not theirs[0]:
        return (
            f"{where} cannot import this project's packages; install them there, start Ray there with their folder in "
            "PYTHONPATH, or ship them with `ray job submit --working-dir`"
        )
    if theirs[0] == ours[0]:
        return f"{where} imports other files from {ours[0]} than the script did: they have changed since; start again"
    return (
        f"{where} would run other code than this script: its packages come from {theirs[0]} (source {theirs[1]}), the "
        f"script's from {ours[0]} (source {ours[1]}); install the same version there, or ship this one with "
        "`ray job submit --working-dir`"
    )
