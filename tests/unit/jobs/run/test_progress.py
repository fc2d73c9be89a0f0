"""What a person sees during a run: an honest rate, no silly time left, plain lines without a terminal."""

from __future__ import annotations

import io
import time
from types import SimpleNamespace

import pytest

from jobs.run import progress as progress_module
from jobs.run.progress import Pace, RunProgress, duration


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the test takes, no time passes for the display."""
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(monotonic=lambda: 100.0))
    monkeypatch.setattr(progress_module, "LOG_EVERY_S", 3600.0)


def test_nothing_is_promised_before_a_few_batches_have_come(clock: Clock) -> None:
    pace = Pace(total=100, clock=clock)
    assert pace.describe() == ""
    clock.now += 60  # pools start, graphs compile
    for _ in range(3):
        pace.add(4, 0)
        clock.now += 2
    assert pace.rate is None
    assert pace.seconds_left is None


def test_the_start_of_the_pools_does_not_count_into_the_rate(clock: Clock) -> None:
    pace = Pace(total=100, clock=clock)
    clock.now += 60
    for step in range(5):
        clock.now += 2 if step else 0
        pace.add(4, 0)
    assert pace.rate == 2.0
    assert pace.seconds_left == 40.0


def test_images_of_an_earlier_run_count_as_done_but_not_into_the_rate(clock: Clock) -> None:
    pace = Pace(total=1000, done=900, clock=clock)
    for _ in range(5):
        pace.add(3, 1)
        clock.now += 2
    clock.now -= 2
    assert pace.done == 920
    assert pace.rate == 2.0
    assert pace.failed == 5
    assert pace.describe() == "2.00 images/s, 5 failed, 40s left"


def test_the_time_left_counts_down_between_batches_but_never_to_nothing(clock: Clock) -> None:
    pace = Pace(total=100, clock=clock)
    for step in range(5):
        clock.now += 2 if step else 0
        pace.add(4, 0)
    clock.now += 5
    assert pace.seconds_left == 35.0
    clock.now += 1000
    assert pace.seconds_left == 20.0


def test_the_rate_follows_the_last_minutes(clock: Clock) -> None:
    pace = Pace(total=100_000, clock=clock)
    for _ in range(400):
        clock.now += 1
        pace.add(1, 0)
    for _ in range(400):
        clock.now += 1
        pace.add(10, 0)
    assert pace.rate == pytest.approx(10, rel=0.01)


def test_a_finished_run_has_no_time_left(clock: Clock) -> None:
    pace = Pace(total=20, clock=clock)
    for _ in range(5):
        clock.now += 2
        pace.add(4, 0)
    assert pace.describe() == "2.00 images/s"


def test_without_a_terminal_phases_and_counts_are_plain_lines(still: None) -> None:
    stream = io.StringIO()
    with RunProgress(stream) as progress:
        progress.phase("planning")
        progress.start(total=8, done=4)
        progress.phase("making images")
        progress.add(3, 1)
    assert stream.getvalue().splitlines() == [
        "[0s] planning",
        "[0s] going on from 4 of 8 images",
        "[0s] making images",
        "[0s] making images 8/8 images, 1 failed",
    ]


def test_what_the_pools_do_is_said_beside_the_phase_until_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.run.progress.LOG_EVERY_S", 0.05)
    stream = io.StringIO()
    with RunProgress(stream) as progress:
        progress.phase("starting the pools")
        progress.start(total=8, done=0)
        progress.detail("2 loading")
        while "starting the pools (2 loading) 0/8 images" not in stream.getvalue():
            time.sleep(0.01)
        progress.phase("making images")
        progress.add(8, 0)
    assert stream.getvalue().endswith("s] making images 8/8 images\n")


def test_a_run_that_ends_while_planning_says_no_count(still: None) -> None:
    stream = io.StringIO()
    with RunProgress(stream) as progress:
        progress.phase("planning")
    assert stream.getvalue() == "[0s] planning\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59.4, "59s"), (59.6, "1m 00s"), (245, "4m 05s"), (12_000, "3h 20m")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text
