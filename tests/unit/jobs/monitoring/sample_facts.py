"""Facts of a run that is well under way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jobs.monitoring.facts import Count, PoolFacts, RunFacts, TimeLeft
from jobs.monitoring.status_file import StatusFile
from manifests.commit import RowFailure


def pool(name: str, **other: Any) -> PoolFacts:
    """One that has nothing to do yet, or with other values."""
    nothing = {"up": 0, "loading": 0, "compiling": 0, "waiting": 0, "in_calls": None, "finished": False}
    return PoolFacts(name=name, **{**nothing, **other})


def facts(**other: Any) -> RunFacts:
    """All that there may be, or with other values."""
    given: dict[str, Any] = {
        "phase": "making images",
        "detail": "1 loading",
        "seconds": 725.0,
        "counts": (
            Count(name="img2img", total=250, done=120, failed=2),
            Count(name="text2img", total=12_600, done=6_100, failed=1),
            Count(name="invalid", total=3, done=3, failed=3),
        ),
        "rate": 2.312,
        "overall_rate": 2.21,
        "left": TimeLeft(likely=12_000, low=11_000, high=14_000),
        "pools": (
            pool("prior", size=1, tflops=0.0337, finished=True),
            pool("decoder", size=8, up=7, loading=1, waiting=14, in_calls=0.973, tflops=81.25),
        ),
        "sealed": 6,
        "shards": 14,
        "lost": {"out of memory": 2, "hung": 1},
        "batches_again": 3,
        "failures": tuple(
            RowFailure(manifest_row=row, id=f"cat-{row}", status="failed_to_load", message=f"no file {row} " + "x" * 90)
            for row in (132, 131, 7)
        ),
    }
    return RunFacts(**{**given, **other})


@contextmanager
def begun_status(
    output: str,
    share: tuple[int, int] = (0, 1),
    notify: Callable[[str], None] = print,
    check: Callable[[], None] = lambda: None,
) -> Iterator[StatusFile]:
    """The status file of a job that has these facts and something to do."""
    with StatusFile(output, share, facts, notify, check) as file:
        file.begin()
        yield file
