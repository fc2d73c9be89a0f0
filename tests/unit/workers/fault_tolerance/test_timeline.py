"""The timeline of a run's devices: what it says of their calls, and that it never grows beyond its bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from workers.fault_tolerance import timeline as timelines
from workers.fault_tolerance.attempts import Attempts, Worker
from workers.fault_tolerance.timeline import LANES, STRETCHES, Calls, Lane

WORKER = Worker("0", "actor", "node", "node/npu-0", "NPU 0 of here")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def calls(clock: Clock) -> Calls:
    return Calls(clock)


def call(calls: Calls, clock: Clock, worker: Worker, start: float, stop: float, stage: str = "decoder") -> None:
    """A call from one second of the run to another."""
    clock.now = 1000 + stop
    calls.add(stage, worker, 1000 + start)


def test_each_stretch_says_how_much_of_it_was_spent_in_calls(calls: Calls, clock: Clock) -> None:
    call(calls, clock, WORKER, 1.0, 3.5)
    call(calls, clock, WORKER, 5.0, 5.01)
    record = calls.record()
    assert (record.seconds, record.stretch) == (5.0, 1.0)
    assert record.lanes == (Lane(stage="decoder", device="NPU 0 of here", seconds=2.5, busy="099501"),)


def test_a_run_of_many_hours_has_as_many_stretches_as_a_short_one(calls: Calls, clock: Clock) -> None:
    call(calls, clock, WORKER, 0, 60)
    for hour in range(50):
        call(calls, clock, WORKER, 3600 * hour + 1800, 3600 * hour + 3600)
    record = calls.record()
    (lane,) = record.lanes
    assert len(lane.busy) <= STRETCHES
    assert record.seconds == 50 * 3600
    assert record.stretch * STRETCHES >= record.seconds > record.stretch * STRETCHES / 2
    assert lane.seconds == 60 + 50 * 1800
    # Half of every hour is without a call; a digit says a little more than less.
    assert 0.5 <= sum(map(int, lane.busy)) / 9 / len(lane.busy) < 0.6


def test_actors_of_one_device_share_a_line_one_after_the_other_and_have_their_own_beside_each_other(
    calls: Calls, clock: Clock
) -> None:
    second = replace(WORKER, id="1", actor="second")
    call(calls, clock, WORKER, 0, 1)
    call(calls, clock, second, 0, 1)
    # A process of an actor that started again, and the actors of the next pipeline.
    call(calls, clock, replace(WORKER, id="2"), 1, 2)
    calls.pipeline_ended()
    call(calls, clock, replace(WORKER, id="3", actor="third"), 2, 3)
    call(calls, clock, replace(WORKER, id="4", actor="fourth"), 2, 3, "prior")
    found = {(lane.stage, lane.device): lane.busy for lane in calls.record().lanes}
    assert found == {
        ("decoder", "NPU 0 of here"): "999",
        ("decoder", "NPU 0 of here (2)"): "9",
        ("prior", "NPU 0 of here"): "009",
    }


def test_devices_stand_in_their_order_and_tasks_are_none(calls: Calls, clock: Clock) -> None:
    for host, number in (("b", 2), ("a", 10), ("a", 2)):
        name = f"NPU {number} of {host}"
        call(calls, clock, replace(WORKER, actor=name, device=name, name=name), 0, 1)
    call(calls, clock, replace(WORKER, actor=""), 0, 1, "encode")
    assert [lane.device for lane in calls.record().lanes] == ["NPU 2 of a", "NPU 10 of a", "NPU 2 of b"]


def test_of_too_many_devices_the_first_are_kept_and_the_others_counted(
    calls: Calls, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timelines, "LANES", 3)
    for number in range(5):
        for start in (0, 1):
            worker = replace(WORKER, actor=str(number), device=str(number))
            call(calls, clock, worker, start, start + 1)
    record = calls.record()
    assert (len(record.lanes), record.left_out) == (3, 2)
    assert LANES * STRETCHES < 200_000


def test_the_books_of_attempts_keep_calls_and_losses(clock: Clock) -> None:
    books = Attempts(set, lambda worker: "", clock=clock)
    books.begin(("decoder", 0, 0), WORKER, can_probe=True)
    clock.now += 2
    books.end(("decoder", 0, 0))
    books.begin(("decoder", 0, 1), WORKER, can_probe=True)
    clock.now += 3
    books.begin(("decoder", 0, 1), replace(WORKER, id="1"), can_probe=True)
    clock.now += 1
    books.end(("decoder", 0, 1))
    # What the lost process did of its batch is not known to be work.
    assert books.timeline().lanes == (
        Lane(stage="decoder", device="NPU 0 of here", seconds=3, busy="990009", lost=(5.0,)),
    )
