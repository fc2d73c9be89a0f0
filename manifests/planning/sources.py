"""One page of truth about what was read: files, columns and what becomes of them, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from manifests.planning.lookalikes import meant
from manifests.records import GIVEN_EMBEDDINGS
from manifests.requests.files import Manifest
from manifests.requests.schema import REQUEST_NAMES
from manifests.storage import MARKER, Found

#: Names told of each kind; all of them are counted.
_TOLD = 8


@dataclass(frozen=True)
class Lookalike:
    """A column that is not used.

    Attributes:
        meant: the request column that it looks like.
        files: how many have it.
    """

    column: str
    meant: str
    files: int


@dataclass(frozen=True)
class LeftOut:
    """Files and folders that lie where the manifest does, and are not read.

    Attributes:
        examples: the first of them.
    """

    reason: str
    count: int
    examples: tuple[str, ...]

    @property
    def in_words(self) -> str:
        """The same as a sentence."""
        return f"left out, {self.count:,} {self.reason}: {_names(self.examples, self.count)}"


@dataclass(frozen=True)
class Sources:
    """What was read.

    Attributes:
        used: request columns, in the schema's order, and embeddings that rows bring along.
        travelling: the other columns, which the index gets as they are.
        in_folders: of all columns, those that names of folders give (`steps=3/`).
        lookalikes: of the travelling ones, those that look like a request column.
        left_out: what lies there and was not read.
        markers: files that mark and check others (`_SUCCESS`), which lie there as well.
        notes: whatever else a person should know, in sentences.
    """

    files: int
    rows: int
    used: tuple[str, ...]
    travelling: tuple[str, ...]
    in_folders: tuple[str, ...]
    lookalikes: tuple[Lookalike, ...]
    left_out: tuple[LeftOut, ...]
    markers: int
    notes: tuple[str, ...]


def summarize_sources(manifest: Manifest, no_text: Mapping[str, int]) -> Sources:
    """Look over a manifest.

    Args:
        no_text: columns of text with bytes that are not UTF-8 -> the first row of the manifest that has such.
    """
    names = dict.fromkeys(name for file in manifest.files for name in file.columns)
    used = [name for name in (*REQUEST_NAMES, *GIVEN_EMBEDDINGS) if name in names]
    likes: Counter[tuple[str, str]] = Counter()
    for columns, files in Counter(frozenset(file.columns) for file in manifest.files).items():
        for column in columns - {*REQUEST_NAMES}:
            if (name := meant(column, columns)) is not None:
                likes[column, name] += files
    left_out, markers = gather_left_out(manifest.found, {file.url for file in manifest.files})
    return Sources(
        files=len(manifest.files),
        rows=manifest.rows,
        used=tuple(used),
        travelling=tuple(name for name in names if name not in used),
        in_folders=tuple(dict.fromkeys(name for file in manifest.files for name, _ in file.constants)),
        lookalikes=tuple(Lookalike(column, name, files) for (column, name), files in sorted(likes.items())),
        left_out=left_out,
        markers=markers,
        notes=(*_no_tasks(manifest), *_not_columns(manifest, names), *_not_text(no_text)),
    )


def gather_left_out(listings: Iterable[Found], read: Collection[str]) -> tuple[tuple[LeftOut, ...], int]:
    """What several locations leave out, by reason, and the number of markers among it.

    Args:
        read: locations of files that are read all the same, because another location names them.
    """
    paths: dict[str, dict[str, None]] = {}
    for found in listings:
        for reason, left in found.left_out.items():
            paths.setdefault(reason, {}).update(dict.fromkeys(path for path in left if path not in read))
    markers = len(paths.pop(MARKER, {}))
    return tuple(LeftOut(reason, len(left), tuple(left)[:_TOLD]) for reason, left in paths.items() if left), markers


def _no_tasks(manifest: Manifest) -> list[str]:
    """Said, because a picture that only travels along, or a caption's own picture, makes img2img of its row."""
    without = sum("task" not in file.columns for file in manifest.files)
    if not without:
        return []
    where = "no column 'task'" + ("" if without == len(manifest.files) else f" in {_count(without, 'file')}")
    return [f"{where}: conditions make a row interpolate, a mask inpaint, an image img2img, and all else is text2img"]


def _not_columns(manifest: Manifest, names: Mapping[str, None]) -> list[str]:
    """Folders above the named ones that would give a request column, which the rows do not have otherwise."""
    above: dict[str, dict[str, None]] = {}
    for found in manifest.found:
        for name, value in found.partition_above:
            if name in REQUEST_NAMES and name not in names:
                above.setdefault(name, {})[f"{name}={value}"] = None
    return [
        f"above what was named: {_names(tuple(folders))}, which gives no column '{name}'; to have it, name the folder "
        "that holds them"
        for name, folders in above.items()
    ]


def _not_text(no_text: Mapping[str, int]) -> list[str]:
    return [
        f"column '{name}' has bytes that are not UTF-8, first in row {row}; it travels as binary"
        for name, row in no_text.items()
    ]


def describe(sources: Sources) -> list[str]:
    """The sources in one line where all is ordinary; a line more for each thing that is not."""
    words = [f"{_count(sources.files, 'file')}, {sources.rows:,} rows", f"columns {_names(sources.used) or 'none'}"]
    if sources.in_folders:
        words.append(f"in folders' names {_names(sources.in_folders)}")
    if sources.travelling:
        words.append(f"kept for the index {_names(sources.travelling)}")
    if sources.markers:
        words.append(f"{_count(sources.markers, 'marker')} left out")
    lines = ["; ".join(words)]
    for like in sources.lookalikes:
        some = "" if like.files == sources.files else f" in {_count(like.files, 'file')}"
        lines.append(f"column '{like.column}'{some} is not used; did you mean {like.meant}?")
    if sources.lookalikes:
        first = {like.meant: like.column for like in reversed(sources.lookalikes) if like.meant not in sources.used}
        pairs = " ".join(_quoted(f"{column}={name}") for name, column in sorted(first.items()))
        if pairs:
            lines.append(f"to rename: python jobs/make_manifest.py --parquet MANIFEST --output NEW --map {pairs}")
    return [*lines, *(left.in_words for left in sources.left_out), *sources.notes]


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _names(names: tuple[str, ...], count: int | None = None) -> str:
    told, more = names[:_TOLD], (len(names) if count is None else count) - len(names[:_TOLD])
    return f"{', '.join(told)}{f' and {more:,} more' if more else ''}"


def _quoted(word: str) -> str:
    return word if word.replace("=", "").replace("_", "").isalnum() else f"'{word}'"
