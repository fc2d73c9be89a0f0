"""From the requests of one window to samples, batches and shards: numbers only, driver and worker alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from manifests.batch import Bucket
from manifests.config import RunConfig
from manifests.planning.ids import Repeats, first_equals
from manifests.requests.schema import SETTINGS, TASKS
from manifests.requests.validation import Resolved

#: `strength` of tasks that have none, in arrays that must sort.
_NO_STRENGTH = -1.0


class PlannedBatch(NamedTuple):
    """Samples `start` to `stop` of the layout, with their place in a shard.

    Attributes:
        number: position of the batch in the shard.
        first_row: position of its first sample in the shard.
        bucket: what the samples share; None for the window's rejected rows.
    """

    number: int
    first_row: int
    start: int
    stop: int
    bucket: Bucket | None


@dataclass(frozen=True)
class PlannedShard:
    """What a finished shard must hold.

    Attributes:
        task: of its samples; None for a shard that holds rejected rows only.
        batches: number of its batches, that of the rejected rows included.
        samples: images to make.
        rejected: rows that failed validation and travel with it.
    """

    task: str | None
    batches: int
    samples: int
    rejected: int

    @property
    def rows(self) -> int:
        """Rows of the shard's index."""
        return self.samples + self.rejected

    def rows_in(self, batches: int) -> int:
        """About how many of its rows are in so many of its batches, which differ in size."""
        return -(-self.rows * batches // self.batches)


@dataclass(frozen=True)
class Layout:
    """The plan of one window.

    Attributes:
        rows: int64, the request of each sample, in the order of the batches; rejected rows come last.
        image_index: int32, which of its request's images each sample is.
        stops: int64, end of each bucket's batches in `rows`; each begins where the one before ends.
        shard_of: int64, position in the window of each batch's shard.
        bucket_of: int64, position of each batch's bucket in `buckets`.
        buckets: the buckets and the number of their samples.
        shards: in the order of their numbers.
        original: int64, position in `rows` of the sample whose image each sample gets; its own where it is made.
    """

    rows: npt.NDArray[np.int64]
    image_index: npt.NDArray[np.int32]
    stops: npt.NDArray[np.int64]
    shard_of: npt.NDArray[np.int64]
    bucket_of: npt.NDArray[np.int64]
    buckets: tuple[tuple[Bucket, int], ...]
    shards: tuple[PlannedShard, ...]
    original: npt.NDArray[np.int64]

    def batches_of(self, shard: int) -> list[PlannedBatch]:
        """The batches of a shard, in order."""
        mine = np.flatnonzero(self.shard_of == shard)
        batches: list[PlannedBatch] = []
        first = int(self.stops[mine[0] - 1]) if len(mine) and mine[0] else 0
        start = first
        for place in mine.tolist():
            stop, bucket = int(self.stops[place]), self.buckets[self.bucket_of[place]][0]
            batches.append(PlannedBatch(len(batches), start - first, start, stop, bucket))
            start = stop
        rejected = self.shards[shard].rejected
        if rejected:
            end = len(self.rows)
            batches.append(PlannedBatch(len(batches), start - first, end - rejected, end, None))
        return batches


def rejected_rows(resolved: Resolved, repeats: Repeats) -> npt.NDArray[np.bool_]:
    """True for rows that are not made: those that have an error or another row's id."""
    rejected = np.zeros(resolved.rows, bool)
    rejected[list(resolved.errors)] = True
    rejected[repeats.rows[repeats.own]] = True
    return rejected


def lay_out(config: RunConfig, resolved: Resolved, repeats: Repeats) -> Layout:
    """Plan one window: sort requests by task and bucket, cut batches, fill shards.

    The sort is stable, so within a bucket samples keep the manifest's order. A batch holds one bucket, a
    shard one task. A shard is full where the next batch would bring it above `shard_size`; a batch that is
    larger than that has a shard to itself. Rejected rows are the last batch of the first shard.

    With `--dedupe` the batches are cut of the first of equal requests, and each is followed by the others, which get
    the same images: such a batch has more samples than the device is given.
    """
    rejected = rejected_rows(resolved, repeats)
    wanted = np.flatnonzero(~rejected)
    equals = first_equals(resolved.given.columns, wanted) if config.dedupe else wanted
    valid = wanted[equals == wanted]
    keys = _bucket_keys(resolved, valid)
    changing = [key for key in keys if len(key) and key.min() != key.max()]
    order = np.lexsort(changing[::-1]) if changing else np.arange(len(valid))
    requests = valid[order]
    cuts = np.zeros(len(requests), bool)
    cuts[:1] = True
    for key in changing:
        cuts[1:] |= key[order][1:] != key[order][:-1]
    counts = resolved.num_images[requests]
    ends = np.cumsum(counts)
    rows = np.repeat(requests, counts)
    image_index = np.arange(len(rows)) - np.repeat(ends - counts, counts)
    buckets = [_bucket(resolved, int(row)) for row in requests[cuts]]
    bucket_stops = np.append((ends - counts)[cuts][1:], ends[-1:])
    limit = config.call_limit
    most = np.array([limit.of(bucket.height, bucket.width) for bucket in buckets], np.int64)
    stops, bucket_of = _cut_batches(bucket_stops, most)
    original = np.arange(len(rows))
    if len(valid) < len(wanted):
        copies, original = _follow(rows, wanted, equals)
        firsts = np.flatnonzero(original == np.arange(len(original)))
        image_index, rows = image_index[np.searchsorted(firsts, original)], copies
        ends_of = np.append(firsts[1:], len(rows))
        stops, bucket_stops = ends_of[stops - 1], ends_of[bucket_stops - 1]
    shard_of, shards = _fill_shards(stops, [buckets[place].task for place in bucket_of], config.shard_size)
    unmade = np.flatnonzero(rejected)
    return Layout(
        rows=np.concatenate([rows, unmade]),
        image_index=np.concatenate([image_index, np.zeros(len(unmade), np.int64)]).astype(np.int32),
        stops=stops,
        shard_of=shard_of,
        bucket_of=bucket_of,
        buckets=tuple(zip(buckets, np.diff(bucket_stops, prepend=0).tolist(), strict=True)),
        shards=tuple(_with_rejected(shards, len(unmade))),
        original=np.append(original, np.arange(len(rows), len(rows) + len(unmade))),
    )


def _follow(
    rows: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64], equals: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Put behind each sample those of the requests that equal its own.

    Args:
        rows: request of each sample that is made.
        wanted: all requests; `equals` has of each the one that is made.

    Returns:
        The request of each sample, and the position of the sample whose image it gets.
    """
    together = wanted[np.argsort(equals, kind="stable")]
    made, first, count = np.unique(np.sort(equals), return_index=True, return_counts=True)
    group = np.searchsorted(made, rows)
    sizes = count[group]
    begins = np.cumsum(sizes) - sizes
    offset = np.arange(sizes.sum()) - np.repeat(begins, sizes)
    return together[np.repeat(first[group], sizes) + offset], np.repeat(begins, sizes)


def _bucket_keys(resolved: Resolved, valid: npt.NDArray[np.int64]) -> list[npt.NDArray[np.float64]]:
    """The bucket's fields as arrays to sort by, the most important first."""
    settings = {name: np.nan_to_num(resolved.settings[name][valid], nan=_NO_STRENGTH) for name in SETTINGS}
    negative = ~resolved.given.columns["negative_prompt"].is_null().to_numpy(zero_copy_only=False)
    return [resolved.tasks[valid], *(settings[name] for name in SETTINGS), negative[valid]]


def _bucket(resolved: Resolved, row: int) -> Bucket:
    """The bucket of a valid row."""
    values = {name: resolved.settings[name][row].item() for name in SETTINGS}
    task = TASKS[resolved.tasks[row]]
    if task != "img2img":
        values["strength"] = None
    has_negative = resolved.given.columns["negative_prompt"][row].is_valid
    return Bucket(task=task, has_negative=has_negative, **values)


def _cut_batches(
    bucket_stops: npt.NDArray[np.int64], most: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cut consecutive buckets into batches: the end of each batch, and the bucket it belongs to.

    Args:
        most: samples of a batch, of each bucket.
    """
    sizes = np.diff(bucket_stops, prepend=0)
    counts = -(-sizes // most)
    bucket_of = np.repeat(np.arange(len(sizes)), counts)
    number = np.arange(len(bucket_of)) - np.repeat(np.cumsum(counts) - counts, counts)
    stops = (bucket_stops - sizes)[bucket_of] + (number + 1) * most[bucket_of]
    return np.minimum(stops, bucket_stops[bucket_of]), bucket_of


def _fill_shards(
    stops: npt.NDArray[np.int64], tasks: Sequence[str], shard_size: int
) -> tuple[npt.NDArray[np.int64], list[PlannedShard]]:
    """Put batches into shards, in order: the shard of each batch, and the shards.

    Args:
        stops: end of each batch.
        tasks: task of each batch, equal ones together.
    """
    shard_of = np.empty(len(stops), np.int64)
    shards: list[PlannedShard] = []
    first, begin = 0, 0
    task_ends = [place for place in range(1, len(tasks)) if tasks[place] != tasks[place - 1]] + [len(tasks)]
    for task_end in task_ends if len(tasks) else ():
        while first < task_end:
            fits = int(np.searchsorted(stops[first:task_end], begin + shard_size, side="right"))
            last = first + max(fits, 1)
            end = int(stops[last - 1])
            shard_of[first:last] = len(shards)
            shards.append(PlannedShard(tasks[first], last - first, end - begin, 0))
            first, begin = last, end
    return shard_of, shards


def _with_rejected(shards: list[PlannedShard], rejected: int) -> list[PlannedShard]:
    """Put the window's rejected rows into its first shard, or into one of their own."""
    if not rejected:
        return shards
    if not shards:
        return [PlannedShard(None, 1, 0, rejected)]
    first = shards[0]
    return [PlannedShard(first.task, first.batches + 1, first.samples, rejected), *shards[1:]]


def key_of(shard: int, row: int, shard_size: int) -> str:
    """Name of a sample's files: five digits of the shard, then the row in the shard, zero-padded.

    Rejected rows may lie beyond the width that samples need; eight more digits keep their keys apart from
    those of any other shard, whatever its number.
    """
    width = _row_digits(shard_size)
    return f"{shard:05d}{row:0{width if row < 10**width else width + 8}d}"


def shards_of(key: str, shard_size: int) -> list[int]:
    """Shards that may hold a key, the likelier one first; none where it is not a key of an output of such shards."""
    width = _row_digits(shard_size)
    heads = [key[:-digits] for digits in (width, width + 8)] if key.isascii() and key.isdigit() else []
    return [int(head) for head in heads if len(head) == 5 or (len(head) > 5 and head[0] != "0")]


def _row_digits(shard_size: int) -> int:
    return max(4, len(str(shard_size - 1)))
