"""The plan of a run: which images, in which batches, in which shards. Pure, deterministic, streamed.

`plan` runs on the driver: it has every window validated and laid out, by itself or by other processes, and keeps of
each only its place, what repeats in it, and the counts of its shards (`window_summary.py`). `window_batches` runs in
a read task: it plans its window again, by the same functions, and yields the batches with everything that their
samples need.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from manifests.batch import Batch, Bucket
from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.planning import ids as naming
from manifests.planning import layout, samples
from manifests.planning.fingerprint import Fingerprint
from manifests.planning.layout import Layout, PlannedBatch, PlannedShard
from manifests.planning.sources import Sources, summarize_sources
from manifests.planning.window_summary import (
    BucketTally,
    Problem,
    Scope,
    Tally,
    WindowSummary,
    join_problems,
    summarize,
    tally,
)
from manifests.records import GIVEN_EMBEDDINGS
from manifests.requests import files, reading
from manifests.requests.columns import cast_requests
from manifests.requests.common_types import as_bytes, has_text
from manifests.requests.files import Manifest, Piece
from manifests.requests.validation import Resolved, check_defaults, resolve

#: Has windows summarized, in order: all of them, in stretches that share few row groups.
Summarizer = Callable[[RunConfig, Sequence[Sequence[tuple[Piece, ...]]], Scope], Iterator[WindowSummary]]


@dataclass(frozen=True)
class Window:
    """All that a read task must know about its window, a few hundred bytes; it is pickled to get there.

    Attributes:
        index: position in the plan.
        pieces: where its rows lie.
        first_row: row of the manifest of its first request.
        rows: number of its requests.
        first_shard: number of its first shard; the others follow.
        shards: number of its shards.
        repeats: its rows whose ids are not theirs alone.
        extras: the manifest's other columns in their common types, the same for all windows.
    """

    index: int
    pieces: tuple[Piece, ...]
    first_row: int
    rows: int
    first_shard: int
    shards: int
    repeats: naming.Repeats
    extras: pa.Schema


@dataclass(frozen=True)
class Plan:
    """What the driver knows of a run.

    Attributes:
        windows: in the manifest's order.
        shards: shard number -> what it will hold.
        requests: rows of the manifest; `rejected` of them failed validation.
        samples: images to make.
        batches: batches of all shards, those of rejected rows included.
        problems: why the rejected rows cannot be made.
        requests_by_task: task -> rows that are made.
        samples_by_task: task -> images to make.
        buckets: bucket -> images to make, and the batches that they fill.
        schema: columns of every batch.
        fingerprint: hex; changes with whatever changes images, names or places, and with nothing else.
        ends: rows after which the manifest ended before more were appended, ascending.
        fingerprint_at: the fingerprint that the manifest had with so many rows, for each of `ends`.
        sources: what was read, and what was not.
    """

    windows: tuple[Window, ...]
    shards: tuple[PlannedShard, ...]
    requests: int
    rejected: int
    samples: int
    batches: int
    problems: tuple[Problem, ...]
    requests_by_task: Mapping[str, int]
    samples_by_task: Mapping[str, int]
    buckets: Mapping[Bucket, BucketTally]
    schema: pa.Schema
    fingerprint: str
    sources: Sources
    ends: tuple[int, ...] = ()
    fingerprint_at: Mapping[int, str] = field(default_factory=dict)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Of the images to make, sorted."""
        return tuple(sorted(self.samples_by_task))


def summarize_in_turn(
    config: RunConfig, stretches: Sequence[Sequence[tuple[Piece, ...]]], scope: Scope
) -> Iterator[WindowSummary]:
    """All windows, one after the other in this process."""
    return summarize(config, itertools.chain.from_iterable(stretches), scope)


def plan(config: RunConfig, ends: Sequence[int] = (), summarizer: Summarizer = summarize_in_turn) -> Plan:
    """Plan the whole manifest; reads no inline image unless a row with one has no id.

    Args:
        ends: where the manifest ended each time before rows were appended to it; the plan of what comes before is
            the same as without what follows.
        summarizer: gives the summaries of the windows.

    Raises:
        UsageError: a request setting of the config cannot be used.
        ManifestError: the manifest as a whole cannot be read.
        StorageError: the ids cannot be sorted, because TMPDIR is full.
    """
    check_defaults(config)
    manifest = files.open_manifest(config.manifest)
    if config.dedupe and set(GIVEN_EMBEDDINGS) & set(manifest.extras.names):
        raise UsageError("option --dedupe: rows that bring embeddings are not told apart by their texts; leave it out")
    windows = files.cut_windows(manifest, config.shard_size, ends, config.dedupe)
    fingerprint = Fingerprint(config, manifest)
    tallies = []
    rows, fingerprint_at = 0, {}
    no_text: dict[str, int] = {}
    texts = pa.schema([field for field in manifest.extras if has_text(field.type)])
    scope = Scope(any(file.inline_bytes for file in manifest.files), texts)
    with naming.IdWatch() as watch:
        stretches = files.cut_stretches(manifest, windows)
        for found in summarizer(config, stretches, scope):
            no_text = {name: rows + row for name, row in found.no_text.items()} | no_text
            fingerprint.add(found.digest, found.rows, found.no_text)
            watch.see(found.names)
            tallies.append(found.tally)
            rows += found.rows
            if rows in ends:
                fingerprint_at[rows] = fingerprint.hexdigest()
        with reading.Reader(("id",)) as reader:
            repeats = watch.repeats(lambda index: cast_requests(reader.read(windows[index]).tables).columns["id"])
    with reading.Reader(inline=False) as light:
        for index, repeated in enumerate(repeats):
            # An id that was used before rejects its row, which moves every batch behind it.
            if repeated.own.any():
                resolved = resolve(light.read(windows[index]).tables, config)
                tallies[index] = tally(resolved, layout.lay_out(config, resolved, repeated), repeated)
    sources = summarize_sources(manifest, no_text)
    manifest = replace(manifest, extras=_as_bytes(manifest.extras, no_text))
    whole = _assemble(manifest, windows, repeats, tallies, fingerprint.hexdigest(), sources)
    return replace(whole, ends=tuple(ends), fingerprint_at=fingerprint_at)


def _as_bytes(extras: pa.Schema, names: Container[str]) -> pa.Schema:
    """The other columns, some of them as binary: what is not text in every row travels as the bytes that it is."""
    return pa.schema([f.with_type(as_bytes(f.type)) if f.name in names else f for f in extras])


def share_of(planned: Plan, share: tuple[int, int]) -> range:
    """Numbers of the shards that are one share's work: every n-th, so that small manifests can be shared as well.

    Args:
        share: which, from 0, of how many.
    """
    index, count = share
    return range(index, len(planned.shards), count)


def window_batches(
    config: RunConfig, window: Window, wanted: Container[tuple[int, int]] | None = None
) -> Iterator[Batch]:
    """Plan one window again and yield its batches, in order, with all columns of `Plan.schema`.

    Args:
        config: the one that the plan was made with.
        window: from the plan.
        wanted: (shard number, batch) pairs to yield; None for all.
    """
    yield from batches_of(config, [window], wanted)


def planned_batches(config: RunConfig, window: Window) -> Iterator[tuple[int, PlannedBatch]]:
    """The batches of a window with the number of their shard, in order; reads no inline image."""
    with reading.Reader(inline=False) as light:
        planned = layout.lay_out(config, resolve(light.read(window.pieces).tables, config), window.repeats)
    for shard in range(window.shards):
        for batch in planned.batches_of(shard):
            yield window.first_shard + shard, batch


def batches_of(
    config: RunConfig, windows: Sequence[Window], wanted: Container[tuple[int, int]] | None = None
) -> Iterator[Batch]:
    """Like `window_batches` for several windows; neighbours share the row groups that they lie in."""
    if not windows:
        return
    with reading.Reader(extras=windows[0].extras) as reader:
        for window in windows:
            yield from _yield_batches(config, window, reader.read(window.pieces), wanted)


def _yield_batches(
    config: RunConfig,
    window: Window,
    fragment: reading.Fragment,
    wanted: Container[tuple[int, int]] | None,
) -> Iterator[Batch]:
    resolved = resolve(fragment.tables, config)
    planned = layout.lay_out(config, resolved, window.repeats)
    names = _final_ids(resolved, window.repeats)
    errors = _all_errors(resolved, window.repeats, names)
    requests = samples.request_table(
        resolved, fragment, names, errors, window.first_row, (config.seed, config.checkpoint)
    )
    for position in range(len(planned.shards)):
        shard = window.first_shard + position
        batches = planned.batches_of(position)
        chosen = [batch for batch in batches if wanted is None or (shard, batch.number) in wanted]
        if chosen:
            yield from _cut(requests, planned, shard, chosen, config.shard_size)


def _cut(
    requests: pa.Table, planned: Layout, shard: int, batches: Sequence[PlannedBatch], shard_size: int
) -> Iterator[Batch]:
    """Batches of one shard with their samples."""
    sizes = [batch.stop - batch.start for batch in batches]
    keys = [
        layout.key_of(shard, batch.first_row + offset, shard_size)
        for batch, size in zip(batches, sizes, strict=True)
        for offset in range(size)
    ]
    places = np.concatenate([np.arange(batch.start, batch.stop) for batch in batches])
    same_as = None
    originals = planned.original[places]
    if (originals != places).any():
        same_as = [
            None if original == place else keys[at]
            for original, place, at in zip(originals, places, np.searchsorted(places, originals), strict=True)
        ]
    tables = samples.cut_samples(requests, planned.rows[places], planned.image_index[places], keys, sizes, same_as)
    for batch, table in zip(batches, tables, strict=True):
        yield Batch(shard, batch.number, batch.bucket, table)


def _all_errors(resolved: Resolved, repeats: naming.Repeats, names: Sequence[str]) -> dict[int, str]:
    errors = dict(resolved.errors)
    for row, first in repeats.split()[1].items():
        reason = f"id: {names[row]!r} was already used by row {first} of the manifest; ids must be unique"
        errors[row] = f"{reason}; {errors[row]}" if row in errors else reason
    return errors


def _final_ids(resolved: Resolved, repeats: naming.Repeats) -> list[str]:
    given = resolved.given.columns
    derived = np.flatnonzero(naming.derived_rows(given["id"]))
    names: list[str] = given["id"].to_pylist()
    if len(derived):
        suffixes, _ = repeats.split()
        for row, digest in zip(derived.tolist(), naming.content_digests(given, derived), strict=True):
            suffix = f"-{suffixes[row]}" if row in suffixes else ""
            names[row] = f"{digest.hex()}{suffix}"
    return names


def _assemble(
    manifest: Manifest,
    windows: Sequence[tuple[Piece, ...]],
    repeats: Sequence[naming.Repeats],
    tallies: Sequence[Tally],
    fingerprint: str,
    sources: Sources,
) -> Plan:
    """Number the shards over all windows and add up."""
    placed, first_row, first_shard = [], 0, 0
    buckets: dict[Bucket, BucketTally] = {}
    samples_by_task: Counter[str] = Counter()
    requests_by_task: Counter[str] = Counter()
    for index, (pieces, repeated, counted) in enumerate(zip(windows, repeats, tallies, strict=True)):
        rows = sum(piece.stop - piece.start for piece in pieces)
        count = len(counted.shards)
        placed.append(Window(index, pieces, first_row, rows, first_shard, count, repeated, manifest.extras))
        first_row += rows
        first_shard += count
        requests_by_task.update(counted.requests)
        for bucket, more in counted.buckets.items():
            buckets[bucket] = buckets.get(bucket, BucketTally()) + more
            samples_by_task[bucket.task] += more.samples
    shards = tuple(shard for counted in tallies for shard in counted.shards)
    return Plan(
        windows=tuple(placed),
        shards=shards,
        requests=manifest.rows,
        rejected=sum(shard.rejected for shard in shards),
        samples=sum(shard.samples for shard in shards),
        batches=sum(shard.batches for shard in shards),
        problems=join_problems(
            (window.first_row, counted.problems) for window, counted in zip(placed, tallies, strict=True)
        ),
        requests_by_task={task: count for task, count in requests_by_task.items() if count},
        samples_by_task=dict(samples_by_task),
        buckets=buckets,
        schema=samples.sample_schema(manifest.extras),
        fingerprint=fingerprint,
        sources=sources,
    )
