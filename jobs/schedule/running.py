"""What a run has to run on: Ray, devices, pools, the attempts actor and the store, for whoever makes images or embeds.

One context for all of it, so that a whole run, the prior's stage alone and rows that are made again start alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from jobs.cost.step_times import StepTimes
from jobs.cost.weights import weights_of
from jobs.cost.work import device_time
from jobs.engine.cluster import EngineLog, Room, cluster, engine_log
from jobs.engine.ledger import unfenced
from jobs.engine.pipeline import Setup, Work, after_loss, run_pipeline
from jobs.engine.pools import npus
from jobs.monitoring.progress import RunProgress
from jobs.schedule.arrange import Schedule, arrange
from jobs.schedule.graphs import GraphPlan, plan_graphs
from jobs.schedule.phases import Hear, run_phases
from manifests import storage
from manifests.commit import Receipt
from manifests.config import RunConfig
from manifests.errors import KandinskyBatchError
from manifests.planning.plan import Plan
from workers.device.device import DeviceChoice, choose_device
from workers.embeddings.lookup import remembered
from workers.fault_tolerance.kept_attempts import session_folder, start_attempts


class Stops(Protocol):
    """Knows whether the run was asked to stop (jobs/run/signals.py)."""

    def listen(self) -> None:
        """Take the signals again, which Ray has taken."""

    def look(self, working: int | None = None) -> None:
        """Asked every second; raises where the run must end now."""


@dataclass
class Running:
    """A run that has started.

    Attributes:
        device: what its pools run on.
        schedule: who works when, as it was chosen at the start.
        graphs: what is compiled, likewise.
        setup: what it runs on now, which is less after a loss.
        said: what the engine has said.
        hear: hears of embeddings that a phase of the prior has stored; true where the run shall stop.
    """

    device: DeviceChoice
    schedule: Schedule
    graphs: GraphPlan
    setup: Setup
    said: EngineLog
    hear: Hear = lambda stored: False

    def receipts(self, work: Sequence[Work], setup: Setup | None = None) -> Iterator[Receipt]:
        """Make the wanted batches of these windows, as the schedule says (`jobs.engine.pipeline.run_pipeline`).

        Args:
            setup: as `self.setup`, with other settings.
        """
        setup = setup or self.setup
        if not setup.pools.in_turn:
            return run_pipeline(setup, work)
        if setup.memory.url is None:
            # What travels between the phases needs a place.
            setup = replace(setup, memory=replace(setup.memory, url=between_phases(self.setup.config)))
        return run_phases(setup, self.schedule.pieces, work, self.hear)

    def lose(self, error: KandinskyBatchError) -> None:
        """Go on with what is left of the cluster.

        Raises:
            IncompleteRunError: it is too small.
        """
        self.setup = after_loss(self.setup)
        self.setup.notify(f"{error}; going on with {self.setup.pools.in_words}")


def between_phases(config: RunConfig) -> str:
    """Where the embeddings of a run that is to keep none (`--embeddings none`) lie until it is done."""
    return storage.join(config.output, "_run/between_phases")


@contextmanager
def start(
    config: RunConfig,
    planned: Plan,
    progress: RunProgress,
    stop: Stops,
    known: Callable[[], tuple[str, StepTimes] | None] = lambda: None,
    fence: Callable[[], None] = unfenced,
) -> Iterator[Running]:
    """Be connected to Ray, with pools that fit its devices; nothing of them is started yet.

    Args:
        known: tells the step times of an earlier run.
        fence: asked by every process before it replaces or removes a file of the output.

    Raises:
        UsageError: the pools cannot run on what the cluster has, or there is no such device.
        KandinskyBatchError: there is no Ray.
    """
    progress.phase("starting Ray")
    with engine_log() as said, cluster(progress.note) as nodes, start_attempts() as attempts:
        stop.listen()
        room = Room(session_folder())

        def look(working: int | None) -> None:
            room.check()
            stop.look(working)

        device = choose_device(config, npus(nodes))
        times = known()
        time = device_time(config, planned, device.kind, times)
        weights = partial(weights_of, config.checkpoint, planned.tasks)
        schedule = arrange(config, planned, device.kind, nodes, time, progress.note, weights)
        progress.note(f"device: {device.kind} ({device.reason})")
        if config.stage == "all":
            progress.note(schedule.in_words)

        graphs = plan_graphs(config, planned.buckets, device.kind, schedule.pools, times)
        if planned.buckets:
            progress.note(graphs.in_words)
        setup = Setup(
            config,
            schedule.pools,
            planned.tasks,
            attempts,
            progress.note,
            progress.engine,
            look,
            remembered(config, device.kind),
            fence=fence,
            graphs=graphs.choice,
            several_shapes=len({bucket.shape for bucket in planned.buckets}) > 1,
        )
        yield Running(device, schedule, graphs, setup, said)
        if setup.memory.url is None:
            # Of an earlier start as well, which was killed.
            storage.remove(between_phases(config), recursive=True)
