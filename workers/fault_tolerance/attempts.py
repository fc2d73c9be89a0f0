"""Attempts, counted outside the processes that die: which row kills, which device is broken, why a pool cannot start.

A process that dies takes its memory along, so every guarded call (workers/fault_tolerance/guard.py) is announced here
before and taken back after. Whoever takes up a batch that a dead process still holds finds out how often that has
happened:

    whole -> died -> whole -> died -> row by row; a row that dies alone is failed, the others are made

`Attempts` is plain bookkeeping; workers/fault_tolerance/kept_attempts.py puts it on the driver's node, as a Ray actor
that costs no CPU share and whose books outlive its process. What is asked twice, because the answer was lost with
that process, counts once.

What is blamed on whom:
- A death is the batch's, then the row's. It is nobody's where the whole node is gone.
- It is nobody's where Ray ended the process for want of memory, as long as the run can do with less
  (workers/fault_tolerance/memory.py).
- Before a row is blamed the device is tried with a small call that is known to be good (the probe). A device that
  dies or raises on that is taken out, and nothing of the batch is blamed. The driver hears of it, ends the pipeline,
  and begins the next one without the device (jobs/engine/broken_devices.py).
- A device is a node and the NPU that Ray assigned; without NPUs it is the node and the stage, for a process that
  starts again has nothing else in common with the one before. The run ends where that is what fails.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from manifests.errors import IncompleteRunError, KandinskyBatchError, UsageError
from workers.fault_tolerance.losses import Loss, Losses
from workers.fault_tolerance.memory import Request, Shortage, What
from workers.fault_tolerance.same_source import difference
from workers.fault_tolerance.timeline import Calls, Timeline

#: Deaths of a whole batch before its rows are tried one by one.
WHOLE_ATTEMPTS = 2

#: Probes that a device must die on before it is taken out: one may be somebody's kill.
PROBE_ATTEMPTS = 2

#: Starts of a pool's actors that may fail, with none succeeding in between, before the run ends.
START_FAILURES = 3

#: A stage's name, and the place of a batch in the plan.
Place = tuple[str, int, int]


@dataclass(frozen=True)
class Worker:
    """A process that works on batches.

    Attributes:
        id: Ray's id of the process; no two ever share one.
        actor: Ray's id of the actor, kept over restarts; "" for a task.
        node: Ray's id of its node.
        device: what is taken out if it is broken.
        name: the device and where it is, for a person.
        npu: the device is an NPU; else it is the CPU, which a run cannot do without.
        source: what it imports of ours (workers/fault_tolerance/same_source.py); None is not compared.
    """

    id: str
    actor: str
    node: str
    device: str
    name: str
    npu: bool = True
    source: tuple[str, str] | None = None


@dataclass(frozen=True)
class Broken:
    """A device that is taken out.

    Attributes:
        device: as `Worker` has it.
        node: Ray's id of its node.
        words: which it is, and why.
    """

    device: str
    node: str
    words: str


@dataclass(frozen=True)
class Orders:
    """How a batch is to be tried.

    Attributes:
        probe: try the device first.
        alone: row by row.
        killed: rows that must not be tried any more, with what each of them did.
        taken_out: why it must not be tried here.
        at_most: samples of one call; None is all of them.
    """

    probe: bool = False
    alone: bool = False
    killed: Mapping[int, str] = field(default_factory=dict)
    taken_out: str | None = None
    at_most: int | None = None


@dataclass(frozen=True)
class News:
    """What the driver asks for every second.

    Attributes:
        trouble: why the run must end now, if it must.
        broken: the devices that were taken out.
        loading: how many actors load their model, by stage.
        compiling: how many actors compile a new shape, by stage.
        working: batches that are being worked on, by stage.
        seconds: spent on batches so far, those that are being worked on too, by stage.
        lost: the newest processes that were lost; `lost_by_cause` counts all of them.
        batches_again: batches whose process was lost with them, so that another one makes them.
        fallbacks: in words, what a device computes in the plain way because a trial of the other one, or a graph,
            failed.
        shortage: the run is to do with less memory; None where it is not to.
        relief: what it did so far to do with less, in words.
    """

    trouble: KandinskyBatchError | None
    broken: list[Broken]
    loading: Mapping[str, int]
    compiling: Mapping[str, int]
    working: Mapping[str, int]
    seconds: Mapping[str, float]
    lost: Sequence[Loss]
    lost_by_cause: Mapping[str, int]
    batches_again: int
    fallbacks: Sequence[str] = ()
    shortage: Request | None = None
    relief: Sequence[str] = ()


@dataclass
class _Record:
    """What is known of one batch in one stage; dropped as soon as the batch has passed."""

    deaths: int = 0
    #: When the holder took it up.
    since: float = 0.0
    killed: dict[int, str] = field(default_factory=dict)
    holder: Worker | None = None
    #: The row that is tried alone, or the probe; None is the whole batch.
    trial: int | Literal["probe"] | None = None
    #: Devices that passed the probe.
    probed: set[str] = field(default_factory=set)


class Attempts:
    """The attempts of a run at its batches, and the devices that broke. All methods are called one at a time.

    Args:
        lost_nodes: tells the ids of nodes that are gone.
        last_words: tells what the engine knows about the end of a process, "" where it knows nothing.
        source: what the script has imported, which all processes must have; None compares nothing.
        clock: tells seconds.
    """

    def __init__(
        self,
        lost_nodes: Callable[[], set[str]],
        last_words: Callable[[str], str],
        source: tuple[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lost_nodes = lost_nodes
        self._clock = clock
        self._source = source
        self._engines_words = last_words
        self._records: dict[Place, _Record] = {}
        self._own_words: dict[str, str] = {}
        self._probe_deaths: Counter[str] = Counter()
        self._out: dict[str, Broken] = {}
        #: Nodes that are gone, and whose processes are known to be lost.
        self._noticed_nodes: set[str] = set()
        #: Devices that the pipeline under way was begun without.
        self._left_out: set[str] = set()
        #: By stage and actor.
        self._starting: defaultdict[str, dict[str, Worker]] = defaultdict(dict)
        #: Actors that have loaded their model, with their stage and the process that did.
        self._up: dict[str, tuple[str, Worker]] = {}
        self._losses = Losses(lost_nodes, self._own_words, last_words)
        self._calls = Calls(clock)
        self._shortage = Shortage()
        #: By stage, the processes that could not, with none in between that could.
        self._start_failures: defaultdict[str, set[str]] = defaultdict(set)
        #: Stages of the actors that do.
        self._compiling: dict[str, str] = {}
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._devices: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._compilations: list[dict[str, Any]] = []
        #: In the order in which they came; an actor that starts again says the same again.
        self._fallbacks: dict[str, None] = {}
        self._trouble: KandinskyBatchError | None = None

    # Batches

    def begin(self, place: Place, worker: Worker, can_probe: bool) -> Orders:
        """A process takes up a batch; tells it how to."""
        if (words := self._other_source(worker)) is not None:
            return Orders(taken_out=words)
        record = self._records.setdefault(place, _Record())
        self._compiling.pop(worker.actor, None)
        self._notice_death(place, record, worker)
        if worker.device in self._out:
            # Whatever was blamed on its rows was blamed on them here.
            self._records.pop(place, None)
            return Orders(taken_out=self._out[worker.device].words)
        record.holder, record.trial, record.since = worker, None, self._clock()
        alone = record.deaths >= WHOLE_ATTEMPTS
        probe = can_probe and alone and worker.device not in record.probed
        return Orders(probe, alone, dict(record.killed), at_most=self._shortage.at_most(place))

    def trying(self, place: Place, trial: int | Literal["probe"]) -> None:
        """The process that holds a batch tries one row of it alone, or its device."""
        self._records[place].trial = trial

    def probed(self, place: Place, worker: Worker, broken: str | None) -> None:
        """The probe came back, or raised what `broken` says."""
        self._records[place].trial = None
        if broken is not None:
            self._take_out(place[0], worker, f"a small call that is known to be good fails there ({broken})")
            return
        self._probe_deaths.pop(worker.device, None)
        self._records[place].probed.add(worker.device)

    def end(self, place: Place) -> None:
        """The batch is done with, one way or the other."""
        record = self._records.pop(place, None)
        self._shortage.passed(place)
        if record is not None and record.holder is not None:
            self._seconds[place[0]] += self._clock() - record.since
            self._calls.add(place[0], record.holder, record.since)

    def say(self, worker_id: str, words: str) -> None:
        """A process that is about to end itself says why."""
        self._own_words[worker_id] = words

    def _notice_death(self, place: Place, record: _Record, worker: Worker) -> None:
        dead = record.holder
        if dead is None or dead.id == worker.id:
            return
        self._note_loss(place[0], dead)
        record.holder = None
        self._losses.batches_again += 1
        own_words = self._own_words.pop(dead.id, None)
        if dead.node in self._lost_nodes():
            return
        if own_words is None and self._is_excused(place, dead, f"the process of {_in_words(place)} of {place[0]}"):
            return
        how = own_words or f"killed its worker{self._how(dead.id)}"
        if record.trial is None:
            record.deaths += 1
        elif record.trial != "probe":
            record.killed[record.trial] = how
        else:
            self._probe_deaths[dead.device] += 1
            if self._probe_deaths[dead.device] >= PROBE_ATTEMPTS:
                self._take_out(place[0], dead, f"processes die there on a small call that is known to be good ({how})")

    def _is_excused(self, what: What, dead: Worker, words: str) -> bool:
        """The process was ended for want of memory, and nobody is to blame for that."""
        starved = dead.id not in self._own_words and bool(self._engines_words(dead.id))
        return starved and self._shortage.excuses(what, words)

    def _note_loss(self, stage: str, dead: Worker, otherwise: str = "it starts again") -> None:
        """A process is found to be gone; what comes of its batch is told, where it had one.

        Args:
            otherwise: what comes of it where it had none.
        """
        batches = (place for place, record in self._records.items() if record.holder and record.holder.id == dead.id)
        place = next(batches, None)
        then = otherwise if place is None else f"its batch ({_in_words(place)}) is made again"
        if self._losses.note(stage, dead, then):
            self._calls.lost(stage, dead)

    def _note_lost_nodes(self) -> None:
        """Whoever was on a node that is gone is lost, whether another process takes its place or nobody does."""
        gone = self._lost_nodes() - self._noticed_nodes
        if gone:
            for stage, worker in self._known_workers():
                if worker.node in gone:
                    self._note_loss(stage, worker, "what is left goes on without its node")
            self._noticed_nodes |= gone

    def _known_workers(self) -> list[tuple[str, Worker]]:
        """Processes that hold a batch, load a model or have loaded one, with their stages."""
        holders = [(place[0], record.holder) for place, record in self._records.items() if record.holder is not None]
        starting = [(stage, worker) for stage, actors in self._starting.items() for worker in actors.values()]
        return [*holders, *starting, *self._up.values()]

    def _how(self, worker_id: str) -> str:
        words = self._engines_words(worker_id)
        return f" ({words})" if words else " (the process ended without a word: a crash in a library, or a kill)"

    def _take_out(self, stage: str, worker: Worker, why: str) -> None:
        words = f"{worker.name} is taken out: {why}"
        self._out[worker.device] = Broken(worker.device, worker.node, words)
        if not worker.npu:
            self._trouble = IncompleteRunError(f"no device is left for the {stage} pool; {words}")

    # Pools

    def starting(self, stage: str, worker: Worker) -> str | None:
        """An actor begins to load its model; tells why it must not, where its device is taken out."""
        if (words := self._other_source(worker)) is not None:
            return words
        _, up = self._up.pop(worker.actor, (stage, None))
        if up is not None and up.id != worker.id:
            self._note_loss(stage, up)
        before = self._starting[stage].pop(worker.actor, None)
        if before is not None and before.id != worker.id:
            self._note_loss(stage, before, "it loads its model again")
            how = "the process ended while it loaded" + self._how(before.id)
            if not self._is_excused(before.actor, before, f"an actor of the {stage} pool that loads its model"):
                self._start_failed(stage, before, how, unusable=False)
        if worker.device in self._out:
            words = self._out[worker.device].words
            if worker.device in self._left_out:
                # Nobody would end this pipeline, and what waits for this actor would wait for ever.
                self._trouble = IncompleteRunError(f"the {stage} pool was given a device again: {words}")
            return words
        self._starting[stage][worker.actor] = worker
        return None

    def ready(self, stage: str, worker: Worker, report: Mapping[str, Any]) -> None:
        """An actor has loaded its model; `report` is what it runs on (workers/device/device.py)."""
        if worker.actor in self._up and "loading_seconds" in report:
            # It has loaded another model beside the first.
            before = self._devices[stage, worker.device].get("loading_seconds", 0.0)
            report = {**report, "loading_seconds": round(before + report["loading_seconds"], 2)}
        self._up[worker.actor] = (stage, worker)
        for switch in report.get("switches", ()):
            if switch["fell_back"]:
                words = f"{worker.name}: {switch['switch']} is {switch['chosen']} for {switch['of']}: {switch['why']}"
                self._fallbacks[words] = None
        self._devices[stage, worker.device] = report
        self._starting[stage].pop(worker.actor, None)
        self._start_failures.pop(stage, None)
        self._shortage.passed(worker.actor)

    def compiling(self, stage: str, worker: Worker) -> None:
        """An actor begins to compile a new shape; it has done so when it takes up a batch."""
        self._compiling[worker.actor] = stage

    def compiled(self, stage: str, worker: Worker, compilations: Sequence[Mapping[str, Any]]) -> None:
        """An actor has compiled graphs, each as a `workers.kandinsky.graph.Compilation`."""
        for each in compilations:
            if each.get("why") is not None:
                shape = " x ".join(map(str, each["shape"]))
                self._fallbacks[f"{worker.name}: {each['part']} of {shape} runs without a graph: {each['why']}"] = None
        found = [{"stage": stage, "device": worker.name, **each} for each in compilations]
        self._compilations += [each for each in found if each not in self._compilations]

    def start_failed(self, stage: str, worker: Worker, why: str, unusable: bool) -> None:
        """An actor could not load its model; `unusable` where no other process could either."""
        self._starting[stage].pop(worker.actor, None)
        self._start_failed(stage, worker, why, unusable)

    def _start_failed(self, stage: str, worker: Worker, why: str, unusable: bool) -> None:
        self._start_failures[stage].add(worker.id)
        if unusable or len(self._start_failures[stage]) >= START_FAILURES:
            where = self._own_words.pop(worker.id, None)
            self._trouble = (UsageError if unusable else IncompleteRunError)(
                f"the {stage} pool cannot start on {worker.name}: {where or why}"
            )

    def _other_source(self, worker: Worker) -> str | None:
        """Why a process must make nothing, which ends the run: its node came later, or its files have changed."""
        if worker.source is None or self._source is None:
            return None
        words = difference(worker.name, worker.source, self._source)
        if words is not None:
            self._trouble = UsageError(words)
        return words

    # For the driver

    def news(self) -> News:
        """How things are."""
        self._note_lost_nodes()
        loading = {stage: len(actors) for stage, actors in self._starting.items() if actors}
        working: Counter[str] = Counter()
        seconds = defaultdict(float, self._seconds)
        for place, record in self._records.items():
            if record.holder is not None:
                working[place[0]] += 1
                if record.holder.actor not in self._compiling:
                    seconds[place[0]] += self._clock() - record.since
        compiling = Counter(self._compiling.values())
        return News(
            self._trouble,
            list(self._out.values()),
            loading,
            compiling,
            working,
            dict(seconds),
            self._losses.newest,
            self._losses.by_cause,
            self._losses.batches_again,
            list(self._fallbacks),
            self._shortage.request,
            list(self._shortage.relief),
        )

    def relieve(self, pools: str | None, batch_size: int | None) -> str:
        """The run does with less memory, as `Shortage.relieve` says; tells how."""
        return self._shortage.relieve(pools, batch_size)

    def devices(self) -> list[dict[str, Any]]:
        """What the run's actors have run on, each device once per stage."""
        return [{"stage": stage, **report} for (stage, _), report in sorted(self._devices.items())]

    def timeline(self) -> Timeline:
        """When the run's actors were in calls so far."""
        return self._calls.record()

    def compilations(self) -> list[dict[str, Any]]:
        """The graphs that the run's actors have compiled, in the order of their ends."""
        return list(self._compilations)

    def pipeline_ended(self) -> None:
        """All processes of a pipeline were ended with it, so that nothing they held is to be blamed for it.

        The next one will do without the devices that were taken out. A process that had come to its own end before,
        or whose node is gone, was lost all the same.
        """
        self._note_lost_nodes()
        for stage, worker in self._known_workers():
            if self._losses.has_ended(worker):
                self._note_loss(stage, worker, "it starts again with the next pipeline")
        for record in self._records.values():
            self._losses.batches_again += record.holder is not None
            record.holder = None
        self._calls.pipeline_ended()
        self._up.clear()
        self._starting.clear()
        self._compiling.clear()
        self._left_out.update(self._out)


def _in_words(place: Place) -> str:
    return f"shard {place[1]}, batch {place[2]}"
