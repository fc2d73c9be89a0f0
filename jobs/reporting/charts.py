"""The charts of the report, as what its templates draw: lines, bars and strips of hand-written SVG."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from jobs.limits.disk_space import in_units
from jobs.monitoring.pace import duration
from jobs.output.scores import BINS, Spread, Tally
from jobs.output.summary import Summary
from manifests.batch import bucket_words
from workers.fault_tolerance.timeline import FULL, Lane, Timeline

#: Devices whose strips are shown, and how many shades a stretch may have.
STRIPS, SHADES = 64, 3

#: Columns of a histogram, and files from which on there is one.
COLUMNS, FEW = 24, 8


def step_times(summary: Summary) -> list[tuple[str, float, str]]:
    """Median seconds of a batch by bucket and stage: label, seconds, words."""
    lines = []
    for measured in summary.times:
        bucket = measured["bucket"]
        place = bucket_words(bucket["task"], bucket["width"], bucket["height"], bucket["steps"])
        for stage, seconds in measured["seconds"].items():
            lines.append((f"{stage}: {place}", seconds, f"{seconds:.2f} s for {measured['size']}"))
    return sorted(lines, key=lambda line: -line[1])[:30]


def course_lines(course: Sequence[tuple[float, int, int]]) -> dict[str, Any] | None:
    """Images written and rows failed over the time of the last start, as lines of a chart; None for too few batches.

    The chart is 100 wide and 100 high, with 0 at its lower left; y counts from above.
    """
    if len(course) < 3 or not course[-1][0]:
        return None
    seconds, written, failed = course[-1]
    most = max(written, failed, 1)

    def line(values: Sequence[int]) -> str:
        marks = zip((mark[0] for mark in course), values, strict=True)
        points = [(100 * at / seconds, 100 - 100 * value / most) for at, value in marks]
        return " ".join(f"{x:.2f},{y:.2f}" for x, y in [(0.0, 100.0), *points])

    return {
        "written": line([mark[1] for mark in course]),
        "failed": line([mark[2] for mark in course]) if failed else "",
        "most": most,
        "words": f"{count(written)} images and {count(failed)} failed rows in {duration(seconds)}",
        "seconds": seconds,
    }


def timeline_lines(timeline: Timeline | None) -> dict[str, Any] | None:
    """When each device was in calls, as strips of a chart; None where nothing was recorded.

    Of many devices those are shown that worked least, because they are what somebody looks for. A strip is as wide as
    the chart has stretches, and 1 high.
    """
    if timeline is None or not timeline.seconds:
        return None
    stretches = math.ceil(timeline.seconds / timeline.stretch)
    kept = sorted(timeline.lanes, key=lambda lane: lane.seconds)[:STRIPS]
    shown = [lane for lane in timeline.lanes if lane in kept]
    count_all = len(timeline.lanes) + timeline.left_out
    return {
        "stretches": stretches,
        "seconds": timeline.seconds,
        "strips": [_strip(lane, timeline) for lane in shown],
        "left_out": f"{count(len(shown))} of {count(count_all)}, those that worked least" if count_all > STRIPS else "",
        "lost": sum(len(lane.lost) for lane in shown),
    }


def _strip(lane: Lane, timeline: Timeline) -> dict[str, Any]:
    paths: dict[int, str] = defaultdict(str)
    start = 0
    for level, group in itertools.groupby(math.ceil(SHADES * int(digit) / FULL) for digit in lane.busy):
        length = len(list(group))
        if level:
            paths[level] += f"M{start} 0h{length}v1h-{length}z"
        start += length
    share = f"{min(1.0, lane.seconds / timeline.seconds):.0%}"
    lost = f", lost at {', '.join(map(duration, lane.lost))}" if lane.lost else ""
    return {
        "stage": lane.stage,
        "label": f"{lane.stage}: {lane.device}",
        "words": share,
        "told": f"{lane.stage}: {lane.device}: in calls {share} of {duration(timeline.seconds)}{lost}",
        "paths": sorted(paths.items()),
        "lost": [round(at / timeline.stretch, 2) for at in lane.lost],
    }


def file_sizes(summary: Summary) -> dict[str, Any] | None:
    """Sizes of an image by task and of the shards' files, as bars and as a histogram; None without a sealed shard."""
    tars = [shard.tar.bytes for shard in summary.stats if shard.tar is not None]
    if not tars:
        return None
    by_task: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for shard in summary.stats:
        found = by_task[shard.task or "?"]
        found[0] += shard.bytes
        found[1] += shard.successes
    images = [
        (f"an image of {task}", size / made, in_units(size // made)) for task, (size, made) in by_task.items() if made
    ]
    indexes = [shard.parquet.bytes for shard in summary.stats]
    return {
        "images": bars(sorted(images, key=lambda line: -line[1])),
        "tars": _histogram(tars),
        "words": f"{_in_all('tar', tars)}; {_in_all('index', indexes)}",
    }


def _in_all(noun: str, sizes: Sequence[int]) -> str:
    plural = {"tar": "tars", "index": "indexes"}[noun] if len(sizes) != 1 else noun
    between = f", from {in_units(min(sizes))} to {in_units(max(sizes))}" if min(sizes) != max(sizes) else ""
    return f"{count(len(sizes))} {plural}, {in_units(sum(sizes))} in all{between}"


def _histogram(sizes: Sequence[int]) -> dict[str, Any] | None:
    """How many files have which size; None for so few that a sentence says it."""
    if len(sizes) < FEW or min(sizes) == max(sizes):
        return None
    counts, edges = np.histogram(sizes, bins=min(COLUMNS, 2 * math.isqrt(len(sizes))))
    most = int(counts.max())
    middle = in_units(int(np.median(sizes)))
    return {
        "columns": [
            {
                "height": round(100 * int(number) / most, 1),
                "words": f"{count(int(number))} of {in_units(int(low))} to {in_units(int(high))}",
            }
            for number, low, high in zip(counts, edges, edges[1:], strict=False)
        ],
        "words": f"sizes of {count(len(sizes))} tars: half of them have {middle} or less",
        "low": in_units(min(sizes)),
        "high": in_units(max(sizes)),
    }


def score_charts(tally: Tally) -> list[dict[str, Any]]:
    """How a score lies, as a histogram for each task, all of them over the same values."""
    filled = np.flatnonzero(sum(spread.bins for spread in tally.tasks.values()))
    first, last = int(filled[0]), int(filled[-1])
    wide = -(-(last - first + 1) // COLUMNS)
    columns = -(-(last - first + 1) // wide)
    low, high = tally.between
    edges = [low + (first + wide * number) * (high - low) / BINS for number in range(columns + 1)]
    return [_score_chart(task, tally.tasks[task], first, edges, wide) for task in sorted(tally.tasks)]


def _score_chart(task: str, spread: Spread, first: int, edges: Sequence[float], wide: int) -> dict[str, Any]:
    columns = len(edges) - 1
    padded = np.concatenate([spread.bins[first:], np.zeros(wide, np.int64)])[: columns * wide]
    counts = padded.reshape(columns, wide).sum(axis=1)
    images = f"{count(spread.count)} image{'' if spread.count == 1 else 's'}"
    return {
        "task": task,
        "words": f"{images}, mean {spread.mean:.3f}",
        "low": f"{edges[0]:.3g}",
        "high": f"{edges[-1]:.3g}",
        "mean": round((spread.mean - edges[0]) / (edges[-1] - edges[0]) * columns, 2),
        "columns": [
            {
                "height": round(100 * int(number) / int(counts.max()), 1),
                "words": f"{count(int(number))} from {begin:.3f} to {end:.3f}",
            }
            for number, (begin, end) in zip(counts, itertools.pairwise(edges), strict=True)
        ],
    }


def bars(lines: Sequence[tuple[str, float, str]]) -> list[dict[str, Any]]:
    """Lines of a bar chart; the longest bar is 100."""
    longest = max((value for _, value, _ in lines), default=0) or 1
    return [{"label": label, "share": round(100 * value / longest, 1), "words": words} for label, value, words in lines]


def count(number: float) -> str:
    """1234567 as 1,234,567."""
    return f"{number:,.0f}"
