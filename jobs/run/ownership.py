"""Whose an output is: a run writes into a folder that is empty, absent, or begun by a run of ours (`_run/plan.json`).

Into another one it writes only where the person says so (`--into-existing`), and even then it replaces nothing that
was there: a planned name that is taken, or a manifest that lies on one, is refused before the first write.
"""

from __future__ import annotations

import re

from manifests import storage
from manifests.commit import sealed_shards
from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.planning.plan import Plan

#: The one entry of an output that a run makes before it has a plan: its lease, the probe of a dry run.
_RUN_FOLDER = "_run"

_SHARD_FILE = re.compile(r"^(\d{5,})(?:\.tar|\.parquet|_stats\.json)$")


def others(output: str) -> list[str]:
    """What lies in an output besides `_run/`."""
    return storage.others_in(output, (_RUN_FOLDER,))


def refuse_others(config: RunConfig, plan: Plan, found: list[str]) -> None:
    """Make sure that a run may begin in an output that no run has begun.

    Args:
        found: what `others` saw there.

    Raises:
        UsageError: there are shards, files of somebody else without leave to write beside them, or one of those files
            has a planned name.
    """
    if sealed_shards(config.output):
        raise UsageError(
            f"{config.output} holds shards but no {_RUN_FOLDER}/plan.json, so they are not of a run that this "
            "one could go on with; use another --output"
        )
    taken = [name for name in found if _is_planned(name, plan)]
    if taken:
        raise UsageError(
            f"{config.output} holds {storage.in_words(taken)}, written by no run of this program, and this run would "
            "replace it; use another --output, or move what is there away"
        )
    if found and not config.into_existing:
        raise UsageError(
            f"{config.output} is neither empty nor an output of this program: it holds {storage.in_words(found)}; use "
            "a new folder as --output, or say --into-existing to write beside what is there"
        )


def refuse_manifest(output: str, plan: Plan) -> None:
    """Make sure that no file of the manifest would be replaced by a shard.

    Raises:
        UsageError: a file of the manifest lies on a planned name.
    """
    for url in dict.fromkeys(piece.url for window in plan.windows for piece in window.pieces):
        name = url.rpartition("/")[2]
        if _is_planned(name, plan) and storage.same_place(storage.folder_of(url), output):
            raise UsageError(
                f"{url} is the manifest, and {name} is also what a shard of this output will be called, which would "
                "replace it; use another --output"
            )


def _is_planned(name: str, plan: Plan) -> bool:
    match = _SHARD_FILE.match(name)
    return match is not None and int(match.group(1)) < len(plan.shards)
