"""When the devices of a run were in calls, in a record whose size grows neither with the run's length nor its batches.

The time is cut into stretches of equal length, which double whenever there would be too many of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from workers.fault_tolerance.attempts import Worker

#: Stretches of a run, actors that are kept, and losses that are kept of each; at most.
STRETCHES, LANES, KEPT_LOSSES = 240, 512, 20

#: Seconds of a stretch at the beginning.
SHORTEST_S = 1.0

#: How full a stretch can be told to be.
FULL = 9


class Lane(BaseModel):
    """One place of an actor: a device that has one actor of a stage, or one of several actors on a node's CPU.

    Attributes:
        stage: of its actor.
        device: for a person.
        seconds: in calls.
        busy: a digit for each stretch up to its last call: from 0, without a call, to 9, in calls all the time.
        lost: seconds since the beginning at which an actor was found lost.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    device: str
    seconds: float
    busy: str
    lost: tuple[float, ...] = ()


class Timeline(BaseModel):
    """Content of `_run/timeline.json`.

    Attributes:
        seconds: from the beginning of the pools to the last end of a call.
        stretch: seconds of a stretch.
        lanes: by device and stage.
        left_out: how many more there were.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float
    stretch: float
    lanes: tuple[Lane, ...]
    left_out: int = 0


@dataclass
class _Lane:
    stage: str
    worker: Worker
    number: int
    #: Seconds in calls of each stretch.
    busy: list[float] = field(default_factory=lambda: [0.0] * STRETCHES)
    lost: list[float] = field(default_factory=list)


class Calls:
    """Collects the calls of actors.

    Args:
        clock: tells seconds; they begin now.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._last = 0.0
        self._stretch = SHORTEST_S
        self._lanes: dict[tuple[str, str, int], _Lane] = {}
        #: By actor, its place: one of a device's where several actors of a stage live there.
        self._places: dict[str, tuple[str, str, int]] = {}
        self._left_out: set[tuple[str, str, int]] = set()

    def add(self, stage: str, worker: Worker, since: float) -> None:
        """A call of an actor has ended; tasks are no devices, and are not kept."""
        lane = self._lane(stage, worker)
        start, stop = since - self._began, self._clock() - self._began
        if lane is None:
            return
        self._last = max(self._last, stop)
        while stop > self._stretch * STRETCHES:
            self._double()
        place = int(start / self._stretch)
        while start < stop and place < STRETCHES:
            end = min(stop, (place + 1) * self._stretch)
            lane.busy[place] += end - start
            start, place = end, place + 1

    def lost(self, stage: str, worker: Worker) -> None:
        """An actor was found lost."""
        lane = self._lane(stage, worker)
        if lane is not None and len(lane.lost) < KEPT_LOSSES:
            lane.lost.append(round(self._clock() - self._began, 1))

    def pipeline_ended(self) -> None:
        """All actors have ended; the next ones take the same places."""
        self._places.clear()

    def record(self) -> Timeline:
        """The calls so far."""
        lanes = sorted(self._lanes.values(), key=lambda lane: (*_in_order(lane.worker.name), lane.stage, lane.number))
        return Timeline(
            seconds=round(self._last, 1),
            stretch=self._stretch,
            lanes=tuple(
                Lane(
                    stage=lane.stage,
                    device=lane.worker.name + (f" ({lane.number + 1})" if lane.number else ""),
                    seconds=round(sum(lane.busy), 1),
                    busy="".join(map(self._digit, lane.busy)).rstrip("0"),
                    lost=tuple(lane.lost),
                )
                for lane in lanes
            ),
            left_out=len(self._left_out),
        )

    def _digit(self, seconds: float) -> str:
        return str(min(FULL, math.ceil(FULL * seconds / self._stretch - 1e-6))) if seconds else "0"

    def _lane(self, stage: str, worker: Worker) -> _Lane | None:
        if not worker.actor:
            return None
        if worker.actor not in self._places:
            taken = set(self._places.values())
            number = next(n for n in range(len(taken) + 1) if (stage, worker.device, n) not in taken)
            self._places[worker.actor] = (stage, worker.device, number)
        place = self._places[worker.actor]
        if place not in self._lanes:
            if len(self._lanes) >= LANES:
                self._left_out.add(place)
                return None
            self._lanes[place] = _Lane(stage, worker, place[2])
        return self._lanes[place]

    def _double(self) -> None:
        self._stretch *= 2
        for lane in self._lanes.values():
            pairs = [sum(lane.busy[place : place + 2]) for place in range(0, STRETCHES, 2)]
            lane.busy = pairs + [0.0] * (STRETCHES - len(pairs))


def _in_order(name: str) -> tuple[str, list[tuple[int, str]]]:
    """Sorts devices by their host, then by their number: NPU 2 comes before NPU 10."""
    host = name.rpartition(" of ")[2]
    return host, [(int(word), "") if word.isdigit() else (-1, word) for word in re.split(r"(\d+)", name)]
