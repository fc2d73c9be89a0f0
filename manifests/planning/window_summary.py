"""What the driver learns of one window and keeps: counts, names' hashes, and what is wrong with its rows.

`summarize` looks at neighbouring windows, in the driver or in any other process; `manifests/planning/plan.py` puts
together what comes back. Nothing here grows with the manifest but by a few bytes per row in `WindowSummary.names`,
which the driver passes on to disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from manifests.batch import Bucket
from manifests.config import RunConfig
from manifests.planning import ids as naming
from manifests.planning.fingerprint import window_digest
from manifests.planning.layout import Layout, PlannedShard, lay_out, rejected_rows
from manifests.requests import reading
from manifests.requests.columns import cast_requests
from manifests.requests.files import Piece
from manifests.requests.schema import IMAGE_COLUMNS, TASKS
from manifests.requests.validation import Resolved, resolve

#: Rows of the manifest named per problem.
FIRST_ROWS = 5


@dataclass(frozen=True)
class Problem:
    """Rows that cannot be made for one reason.

    Attributes:
        column: where it is.
        reason: what is wrong, in words that hold for all of the rows.
        count: how many rows.
        rows: the first of them, rows of the manifest from 0.
        example: the message of the first.
    """

    column: str
    reason: str
    count: int
    rows: tuple[int, ...]
    example: str


@dataclass(frozen=True)
class BucketTally:
    """Samples of a bucket, the batches that they fill, and how many of them are made; the others are copies."""

    samples: int = 0
    batches: int = 0
    made: int = 0

    def __add__(self, other: BucketTally) -> BucketTally:
        return BucketTally(self.samples + other.samples, self.batches + other.batches, self.made + other.made)


@dataclass(frozen=True)
class Tally:
    """What the plan keeps of a window's layout.

    Attributes:
        shards: in the order of their numbers.
        buckets: bucket -> its samples and batches.
        requests: task -> rows that are made.
        problems: why the others are not, rows counted from the window's first.
    """

    shards: tuple[PlannedShard, ...]
    buckets: Mapping[Bucket, BucketTally]
    requests: Mapping[str, int]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Scope:
    """What to look at beside the request columns.

    Attributes:
        inline: some images lie inline. They are read for the content ids of rows without id, and for nothing else.
        texts: the other columns that hold text, in their common types.
    """

    inline: bool
    texts: pa.Schema


@dataclass(frozen=True)
class WindowSummary:
    """What is learnt of one window.

    Attributes:
        rows: number of its requests.
        digest: its part of the plan's fingerprint.
        names: for finding what repeats.
        tally: as if no row of another window used one of its ids.
        no_text: columns of `Scope.texts` with bytes that are not UTF-8 -> the first such row of the window.
    """

    rows: int
    digest: bytes
    names: naming.WindowNames
    tally: Tally
    no_text: Mapping[str, int]


def summarize(config: RunConfig, windows: Iterable[Sequence[Piece]], scope: Scope) -> Iterator[WindowSummary]:
    """The way of a window, for neighbouring ones in turn: read, cast and resolve, lay out, count, and name.

    Each row group that the windows lie in is decoded once.

    Raises:
        ManifestError: a file has changed, vanished, or is damaged.
    """
    with reading.Reader(extras=scope.texts, inline=False) as light, reading.Reader(IMAGE_COLUMNS) as images:
        for pieces, fragment in _read_ahead(light, windows):
            resolved = resolve(fragment.tables, config)
            planned = lay_out(config, resolved, naming.NO_REPEATS)
            counted = tally(resolved, planned, naming.NO_REPEATS)
            columns = resolved.given.columns
            names = _names(columns, pieces, images if scope.inline else None)
            digest = window_digest(columns, names.content_hashes)
            yield WindowSummary(resolved.rows, digest, names, counted, _no_text(fragment.extras))


def _no_text(texts: pa.Table | None) -> dict[str, int]:
    """Columns with bytes that are not UTF-8, which Arrow reads as text all the same, and the first row of each."""
    found = {}
    for name, column in zip(texts.column_names, texts.columns, strict=True) if texts is not None else ():
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            found[name] = next((row for row in range(len(column)) if not _is_valid(column, row)), 0)
    return found


def _is_valid(column: pa.ChunkedArray, row: int) -> bool:
    try:
        column.take(pa.array([row])).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _read_ahead(
    reader: reading.Reader, windows: Iterable[Sequence[Piece]]
) -> Iterator[tuple[Sequence[Piece], reading.Fragment]]:
    """Each window with its rows; while one is worked on the next is read, which Arrow does without Python's lock."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        waiting: tuple[Sequence[Piece], Future[reading.Fragment]] | None = None
        for pieces in windows:
            following = (pieces, pool.submit(reader.read, pieces))
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = following
        if waiting is not None:
            yield waiting[0], waiting[1].result()


def _names(
    columns: Mapping[str, pa.Array], pieces: Sequence[Piece], images: reading.Reader | None
) -> naming.WindowNames:
    """What the watch must know of a window's ids.

    Args:
        images: reads the inline images, which the columns lack; None where there are none.
    """
    rows = np.flatnonzero(naming.derived_rows(columns["id"]))
    if images is not None and len(rows):
        full = cast_requests(images.read(pieces).tables).columns
        columns = {**columns, **{name: full[name] for name in IMAGE_COLUMNS}}
    digests = naming.content_digests(columns, rows) if len(rows) else []
    return naming.WindowNames.of(columns["id"], digests)


def tally(resolved: Resolved, planned: Layout, repeats: naming.Repeats) -> Tally:
    """Count what a window's layout holds, and why its other rows are not made."""
    made = resolved.tasks[~rejected_rows(resolved, repeats)]
    batches = np.bincount(planned.bucket_of, minlength=len(planned.buckets)).tolist()
    copies = np.append(0, np.cumsum(planned.original != np.arange(len(planned.original))))
    stops = np.cumsum([0, *(samples for _, samples in planned.buckets)])
    return Tally(
        shards=planned.shards,
        buckets={
            bucket: BucketTally(samples, count, samples - int(copied))
            for (bucket, samples), count, copied in zip(planned.buckets, batches, np.diff(copies[stops]), strict=True)
        },
        requests={task: int(count) for task, count in zip(TASKS, np.bincount(made, minlength=len(TASKS)), strict=True)},
        problems=_problems(resolved, repeats),
    )


def _problems(resolved: Resolved, repeats: naming.Repeats) -> tuple[Problem, ...]:
    found = []
    for (column, reason), rows in resolved.reasons.items():
        first = sorted(rows)[:FIRST_ROWS]
        found.append(Problem(column, reason, len(rows), tuple(first), rows[first[0]]))
    used = repeats.rows[repeats.own].tolist()
    if used:
        shown = resolved.given.show("id", used[0])
        example = f"id: {shown} was already used by row {repeats.numbers[repeats.own][0]} of the manifest"
        found.append(Problem("id", "was already used by another row", len(used), tuple(used[:FIRST_ROWS]), example))
    return tuple(found)


def join_problems(windows: Iterable[tuple[int, Sequence[Problem]]]) -> tuple[Problem, ...]:
    """The problems of all windows, most rows first.

    Args:
        windows: the manifest's row that each window begins with, and its problems; in order.
    """
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], Problem] = {}
    for first_row, problems in windows:
        for problem in problems:
            kind = (problem.column, problem.reason)
            counts[kind] += problem.count
            known = first.setdefault(kind, Problem(*kind, 0, (), problem.example))
            rows = (*known.rows, *(first_row + row for row in problem.rows))[:FIRST_ROWS]
            first[kind] = Problem(*kind, counts[kind], rows, known.example)
    return tuple(sorted(first.values(), key=lambda problem: -problem.count))
