"""Two outputs side by side: rows of one with those of the other that have the same id, and what is set otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.output.catalog import Catalog
from jobs.output.summary import Summary
from manifests.errors import SUCCESS
from manifests.requests.schema import SETTINGS

Row = Mapping[str, Any]

#: Columns of a record that two rows of one id may have otherwise.
COMPARED = ("task", "seed", "prompt", "negative_prompt", *SETTINGS, "image_path", "mask_path", "checkpoint")

#: Settings that say where a run was and how, not what was made.
_PLACES = frozenset({"output", "embeddings", "report", "grace", "append", "retry_errors", "into_existing", "times_of"})


@dataclass(frozen=True)
class Against:
    """Another output, to be seen beside one's own.

    Attributes:
        catalog: its rows.
        names: what the results are called on the page, ours and theirs.
        apart: what the two runs have set otherwise: name, ours, theirs.
    """

    catalog: Catalog
    names: tuple[str, str]
    apart: Sequence[tuple[str, str, str]]

    @classmethod
    def of(cls, ours: Summary, other: str) -> Against:
        """Open the other output; errors as of `Catalog`."""
        catalog = Catalog(other)
        places = (ours.output, other)
        last, other_last = (place.rstrip("/").rsplit("/", 1)[-1] for place in places)
        names = (last, other_last) if last != other_last else places
        return cls(catalog, names, list(_apart(ours, catalog.summary)))


def row_apart(ours: Row, theirs: Row) -> str:
    """What two rows of one id have otherwise, in words; "" where that is nothing."""
    different = [name for name in COMPARED if ours[name] != theirs[name]]
    return "; ".join(f"{name} {_in_words(ours[name])} | {_in_words(theirs[name])}" for name in different)


def missing(row: Row | None) -> str:
    """Why there is no picture of a row of the other output; "" where there is one."""
    if row is None:
        return "no row of this id"
    return "" if row["status"] == SUCCESS else row["error_message"] or row["status"]


def _apart(ours: Summary, theirs: Summary) -> list[tuple[str, str, str]]:
    pairs = [
        (name.replace("_", " "), ours.settings.get(name), theirs.settings.get(name))
        for name in dict.fromkeys([*ours.settings, *theirs.settings])
        if name not in _PLACES
    ]
    pairs.append(("device", ours.report.get("device"), theirs.report.get("device")))
    versions = [summary.report.get("versions", {}) for summary in (ours, theirs)]
    pairs += [
        (name, versions[0].get(name), versions[1].get(name)) for name in dict.fromkeys([*versions[0], *versions[1]])
    ]
    return [(name, _in_words(one), _in_words(other)) for name, one, other in pairs if one != other]


def _in_words(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:g}"
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
