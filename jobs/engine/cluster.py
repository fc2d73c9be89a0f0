"""The Ray cluster a job runs in, and the settings of Ray Data.

Each setting is here because a run was seen to hang or to lose work without it (infra/adr/0001-ray-data.md).
"""

from __future__ import annotations

import io
import logging
import re
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from types import SimpleNamespace
from typing import Any, ClassVar

import ray
from ray.data import DataContext
from ray.data._internal.cluster_autoscaler import DefaultAutoscalingCoordinator as Coordinator
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.operators import actor_pool_map_operator
from ray.data._internal.stats import _StatsManager
from ray.util.annotations import RayDeprecationWarning

from jobs.engine.affinity import ShapeAffinity
from jobs.engine.connection import check_source, connect, is_own, starts_own
from jobs.engine.elastic import BACKPRESSURE, GrowDecoder, end_pools
from jobs.engine.pools import Node, total
from manifests import storage
from manifests.errors import KandinskyBatchError, StorageError

#: Longer than the start of a pool that fetches its weights.
NO_PROGRESS_TIMEOUT_S = 1800

#: What Ray Data's driver tells its coordinator of resources, and the actor that makes metrics.
COORDINATOR_CALLS = ("request_resources", "cancel_request")
STATS_CALLS = ("register_dataset_to_stats_actor", "update_execution_metrics", "update_iteration_metrics")

#: So often the driver asks whether the run must end.
LOOK_UP_S = 1.0

#: Blocks that may be given up before the run stops: one defect that hits every batch must not run for hours.
MAX_ERRORED_BLOCKS = 16

#: Of what the engine prints, so many pieces are kept for the error log.
KEPT_PIECES = 5000

#: With fewer bytes free Ray's folder is full, and for so many seconds it may be.
FULL_BYTES, FULL_S = 1 << 18, 30.0

_COLOURS = re.compile("\x1b\\[[0-9;]*m")
_ERROR_LINE = re.compile(r"[\w.]*(Error|Exception|Interrupt|Exit)\b(\(\w+\))?:")
_WRAPPER_LINE = re.compile(r"(ray\.exceptions\.|.*\b(UserCodeException|SystemException|RayTaskError)\b)")

#: What survives a lost actor: it starts again for ever, and so does what it was doing. A bound here would be spent by
#: batches that merely wait behind one that kills; workers/fault_tolerance/attempts.py counts deaths and ends them.
ACTOR_FAULT_OPTIONS: Mapping[str, Any] = {"max_restarts": -1, "max_task_retries": -1}


#: What `connecting` has begun and no `cluster` has taken over.
_begun: Future[None] | None = None


@contextmanager
def connecting(tell: Callable[[str], None] = lambda words: None) -> Iterator[None]:
    """Begin to start Ray, where there is none, while this thread does something else first.

    The next `cluster` waits for it. Ray's start is a second or more of waiting for its processes; to join a cluster is
    quick, and left to `cluster`. What no `cluster` has taken over by the end is ended.

    Args:
        tell: hears what a person should know about that.

    Raises:
        KandinskyBatchError: as `jobs.engine.connection` says of RAY_ADDRESS.
    """
    global _begun
    if ray.is_initialized() or not starts_own():
        yield
        return
    # The thread lasts as long as the connection may: Linux ends Ray's processes with the thread that has started them.
    with ThreadPoolExecutor(1, "ray-start") as thread:
        _begun = thread.submit(connect, tell)
        try:
            yield
        finally:
            unused, _begun = _begun, None
            if unused is not None and unused.exception() is None:
                ray.shutdown()


def _connect(tell: Callable[[str], None]) -> None:
    """Connect, or wait for what `connecting` has begun, which ends it where this wait is ended by a signal."""
    global _begun
    if _begun is not None:
        _begun.result()
        _begun = None
        return
    try:
        connect(tell)
    except BaseException:
        ray.shutdown()
        raise


@contextmanager
def cluster(tell: Callable[[str], None] = lambda words: None) -> Iterator[list[Node]]:
    """Be connected to Ray; yields what its nodes have.

    Connects to the cluster that RAY_ADDRESS or `ray start` on this machine names, else starts one here that
    ends with the job. A process that is connected already stays connected afterwards.

    Args:
        tell: hears what a person should know about that.

    Raises:
        KandinskyBatchError: as `jobs.engine.connection` says.
    """
    ours = _begun is not None or not ray.is_initialized()
    if ours:
        _connect(tell)
    try:
        alone = is_own()
        if not alone:
            # Its nodes need not have this process's path.
            check_source()
        with _engine_of_one_job(alone):
            yield nodes()
    finally:
        if ours:
            ray.shutdown()


@contextmanager
def _engine_of_one_job(alone: bool) -> Iterator[None]:
    """Ray Data counts on the whole cluster, however many others have asked for a part of it.

    Its coordinator gives all who ask equal parts of the CPUs, the memory and the object store, in whole CPUs, and a job
    that was killed counts for three more minutes: on four CPUs, after three kills, a run had one, which its prior held,
    and stood still. How a job divides the cluster is for its pools (jobs/engine/pools.py), and Ray's own scheduler
    holds who asks for more than there is.

    Args:
        alone: nobody else can be there, and there is one node. Then the job does without three actors that Ray Data
            starts beside the pools, each a process that imports all of it first: that coordinator, which also asks an
            autoscaler for nodes, one for metrics that nobody can find on a cluster without a dashboard, and one that
            knows on which node an actor of a pool is.
    """
    replaced: list[tuple[Any, str, Any]] = [(Coordinator, "get_reserved_resources", lambda self: _usable())]
    if alone:
        replaced += [(Coordinator, name, _nothing) for name in COORDINATOR_CALLS]
        replaced += [(_StatsManager, name, staticmethod(_nothing)) for name in STATS_CALLS]
        # Every actor of a pool gets the handle, and tells its node.
        handle = SimpleNamespace(update_actor_location=SimpleNamespace(remote=_nothing))
        replaced += [(actor_pool_map_operator, "get_or_create_actor_location_tracker", lambda: handle)]
        # Where nobody knows better, an actor is where it was.
        replaced += [(actor_pool_map_operator, "get_actor_locations", lambda logical_ids: {})]
    kept = [(owner, name, vars(owner)[name]) for owner, name, _ in replaced]
    for owner, name, value in replaced:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in kept:
            setattr(owner, name, value)


def _usable() -> dict[str, Node]:
    """By the ids of nodes, what those have that can run something."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")}


def _nothing(*given: Any, **named: Any) -> None:
    """What is called in place of an actor that is not there."""


class EngineLog(io.TextIOBase):
    """The last lines that Ray and Ray Data said, which a person needs only where a run fails."""

    def __init__(self) -> None:
        self._pieces: deque[str] = deque(maxlen=KEPT_PIECES)

    def write(self, text: str) -> int:
        """Keep what is printed."""
        self._pieces.append(text)
        return len(text)

    @property
    def text(self) -> str:
        """Everything kept, oldest first, without colours."""
        return _COLOURS.sub("", "".join(self._pieces))


@contextmanager
def engine_log() -> Iterator[EngineLog]:
    """Collect the engine's words instead of showing them between the lines of the run.

    Ray prints what its other processes report to stdout, a traceback for every attempt; Ray Data logs to the
    terminal as well. Both keep their full logs in Ray's session folder.
    """
    log = EngineLog()
    logger = logging.getLogger("ray.data")
    # Ray Data's handler for its file is no StreamHandler, and stays.
    shown = [handler for handler in logger.handlers if isinstance(handler, logging.StreamHandler)]
    kept = logging.StreamHandler(log)
    kept.setLevel(logging.ERROR)
    for handler in shown:
        logger.removeHandler(handler)
    logger.addHandler(kept)
    # A log that has no room would print a traceback between the lines of the run, for each of its own.
    loud, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        with redirect_stdout(log):
            yield log
    finally:
        logging.raiseExceptions = loud
        logger.removeHandler(kept)
        for handler in shown:
            logger.addHandler(handler)


def reason(text: str) -> str:
    """The one line of an engine's traceback that says what happened: the last error that is not a wrapper's."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if _ERROR_LINE.match(line) and not _WRAPPER_LINE.match(line)]
    return (named[-1:] or lines[:1] or ["no reason given"])[0]


class LookUp(ExecutionCallback):
    """Lets the driver look up now and then while it waits in Ray Data's iterator, in that engine's own loop.

    What `ask` raises ends the pipeline with its actors and is raised by its iterator. Ray Data makes the object itself
    and sends its class along to workers, so what it does is kept here and stays here.
    """

    ask: ClassVar[Callable[[Any], None] | None] = None

    def __init__(self) -> None:
        self._next = 0.0

    def on_execution_step(self, executor: Any) -> None:
        """Called many times a second."""
        if LookUp.ask is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + LOOK_UP_S
            try:
                LookUp.ask(executor._topology)
            except Exception:
                end_pools(executor._topology)
                raise


def nodes() -> list[Node]:
    """What each node that is alive has, by Ray's names of resources."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


class Room:
    """Looks whether Ray's folder has room: a full one keeps its processes from starting, and what needs one waits.

    Args:
        folder: of Ray's sockets and logs on this machine; None looks at nothing.
        clock: tells seconds.
    """

    def __init__(self, folder: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._full_since: float | None = None

    def check(self) -> None:
        """Asked now and then.

        Raises:
            StorageError: it has been full for `FULL_S` seconds.
        """
        words = full_words(self._folder)
        if words is None:
            self._full_since = None
            return
        now = self._clock()
        self._full_since = now if self._full_since is None else self._full_since
        if now - self._full_since >= FULL_S:
            raise StorageError(words)


def full_words(folder: str | None) -> str | None:
    """That a folder of Ray's has no room, and what to do; None where it has."""
    free = None if folder is None else storage.free_bytes(folder)
    if free is None or free >= FULL_BYTES:
        return None
    return (
        f"No space left on device: {folder}, where Ray keeps what its processes need to start, is full; free some "
        "space there, or set RAY_TMPDIR to a folder with room"
    )


class ClusterShrankError(KandinskyBatchError):
    """The pools must be smaller: nodes are gone, a device is to be done without, or memory is short."""


class Watch:
    """Looks whether the cluster still holds what a pipeline needs.

    An actor of a lost node waits for room on another one, and what it was doing waits with it; where there is no room
    that is for ever, so the pipeline must be ended and begun anew with smaller pools.

    Args:
        needs: what the pipeline takes, by Ray's names of resources.
        left: tells what the nodes have that are alive, less what the pipeline must not use.
    """

    def __init__(self, needs: Mapping[str, float], left: Callable[[], Sequence[Node]]) -> None:
        self._needs = needs
        self._left = left
        self._nodes = _alive()

    def check(self) -> None:
        """Cheap; asked every second.

        Raises:
            ClusterShrankError: nodes are gone since the pipeline began, and the rest is too small for it.
        """
        lost = self._nodes - _alive()
        if not lost:
            return
        left = self._left()
        # Rounding apart, because Ray counts in ten-thousandths.
        if any(total(left, name) < amount - 0.01 for name, amount in self._needs.items()):
            raise ClusterShrankError(f"the cluster has lost {len(lost)} of {len(self._nodes)} nodes")


def _alive() -> frozenset[str]:
    return frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])


def set_up_ray_data(slowest_batch_s: float, look_up: Callable[[Any], None], most_decoders: int) -> None:
    """Set what Ray Data shall do with this job's blocks and with faults.

    Args:
        slowest_batch_s: seconds that no batch exceeds in one stage.
        most_decoders: actors that the decoder pool may have when the prior is done.
        look_up: called every second while a pipeline runs, with its operators and their states; what it raises ends it.
    """
    context = DataContext.get_current()
    # One row is one batch: any two rows are above this size, so blocks are never put together.
    context.target_max_block_size = 1
    # A device that cannot start is tried again in place, then in fresh processes, then the job ends.
    context.actor_init_retry_on_errors = True
    context.actor_init_max_retries = 2
    context.max_consecutive_actor_init_deaths = 4
    # Our stages turn a row's error into data. What still raises would raise for ever, so it is not retried.
    context.actor_task_retry_on_errors = False
    context.max_errored_blocks = MAX_ERRORED_BLOCKS
    context.execution_no_progress_timeout_s = NO_PROGRESS_TIMEOUT_S + slowest_batch_s
    LookUp.ask = look_up
    GrowDecoder.most = most_decoders
    context.custom_execution_callback_classes = [LookUp, GrowDecoder, ShapeAffinity]
    context.set_config(*BACKPRESSURE)
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # The Ray we pin has no other way yet to pass ACTOR_FAULT_OPTIONS than the one it warns about.
    warnings.filterwarnings("ignore", message="`ray_remote_args", category=RayDeprecationWarning)
    # A stage that has fewer batches than it may have tasks under way is as good as any.
    warnings.filterwarnings("ignore", message="The maximum number of concurrent tasks for", category=UserWarning)
