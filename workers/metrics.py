"""What a run counts for Prometheus beside Ray's own metrics; Ray exports these from every node as `ray_kandinsky_…`.

    kandinsky_rows_total            rows that a stage is done with, by stage and status as in the index
    kandinsky_busy_seconds_total    seconds that a stage's processes have spent on batches
    kandinsky_call_seconds          histogram of seconds per batch, by stage and bucket; its count is that of batches
    kandinsky_tflop_total           TFLOP that the images of finished batches have taken, by stage; told by the driver

Ray sums up a histogram from the middles of its buckets, so seconds are counted beside it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from manifests.batch import Bucket
from manifests.errors import SUCCESS, RowStatus

#: Seconds: from a batch of small images on a quick card to one that is about to be taken for hung.
_BOUNDS = [0.1, 0.3, 1, 3, 5, 10, 20, 40, 80, 160, 320, 640, 1800]


#: Buckets that one process tells apart: every one is a dozen series on every node, and a manifest may have thousands.
_MOST_BUCKETS = 40

#: What the bucket is called of batches of any further one.
OTHER = "other"


@cache
def _instruments() -> tuple[Any, Any, Any, Any]:
    """Made once per process, where Ray is."""
    from ray.util.metrics import Counter, Histogram

    return (
        Counter("kandinsky_rows", "Rows that a stage is done with.", ("stage", "status")),
        Counter("kandinsky_busy_seconds", "Seconds that a stage's processes have spent on batches.", ("stage",)),
        Histogram("kandinsky_call_seconds", "Seconds that a stage took for one batch.", _BOUNDS, ("stage", "bucket")),
        Counter("kandinsky_tflop", "TFLOP that the images of finished batches have taken.", ("stage",)),
    )


def count_work(stage: str, tflop: float) -> None:
    """Count what the images of a finished batch have taken of a stage, more than 0; padding is not counted."""
    _instruments()[3].inc(tflop, {"stage": stage})


@cache
def _told_apart() -> set[str]:
    """The buckets of this process, at most `_MOST_BUCKETS`."""
    return set()


def count_batch(stage: str, bucket: Bucket | None, made: int, failed: int, failure: RowStatus, seconds: float) -> None:
    """Count one batch that a stage is done with.

    Args:
        stage: its name.
        bucket: of the batch; None for rows without one.
        made: rows that go on.
        failed: rows that end here.
        failure: what those have in the index.
        seconds: that the stage took, more than 0.
    """
    rows, busy_seconds, call_seconds, _ = _instruments()
    for count, status in ((made, SUCCESS), (failed, failure)):
        if count:
            rows.inc(count, {"stage": stage, "status": status})
    busy_seconds.inc(seconds, {"stage": stage})
    call_seconds.observe(seconds, {"stage": stage, "bucket": _label(bucket)})


def _label(bucket: Bucket | None) -> str:
    words, known = OTHER if bucket is None else bucket.words, _told_apart()
    if len(known) < _MOST_BUCKETS:
        known.add(words)
    return words if words in known else OTHER
