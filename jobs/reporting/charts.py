"""The charts of the report, as what its templates draw: lines, bars and strips of hand-written SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobs.monitoring.pace import duration
from jobs.output.summary import Summary


def step_times(summary: Summary) -> list[tuple[str, float, str]]:
    """Median seconds of a batch by bucket and stage: label, seconds, words."""
    lines = []
    for measured in summary.times:
        bucket = measured["bucket"]
        place = f"{bucket['task']} {bucket['width']} x {bucket['height']}, {bucket['steps']} steps"
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


def bars(lines: Sequence[tuple[str, float, str]]) -> list[dict[str, Any]]:
    """Lines of a bar chart; the longest bar is 100."""
    longest = max((value for _, value, _ in lines), default=0) or 1
    return [{"label": label, "share": round(100 * value / longest, 1), "words": words} for label, value, words in lines]


def count(number: float) -> str:
    """1234567 as 1,234,567."""
    return f"{number:,.0f}"
