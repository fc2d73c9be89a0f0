"""Around every call that may take its process along: announced before, watched while it runs, row by row if need be."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import pyarrow as pa

from manifests.batch import Batch, Bucket
from manifests.errors import KandinskyBatchError, RowError, RowStatus, UsageError
from workers import metrics
from workers.device import device
from workers.fault_tolerance.attempts import Orders, Place, Worker
from workers.fault_tolerance.same_source import own_source

#: Exit code of a process that ended itself because a call did not come back.
HUNG = 70

#: Later than the watchdog by so much comes the one that needs no Python lock, for calls that never release it.
SECOND_WATCHDOG_S = 15.0

#: Seconds that loading a model may take, or compiling it for one shape.
START_LIMIT_S = 1800.0

#: An actor on a device that is taken out does nothing for so long; the driver, which has heard of it, ends it sooner.
HOLD_S = 3600.0

#: Settings of a call that only asks whether the device works.
PROBE_BUCKET = Bucket(
    task="text2img",
    height=128,
    width=128,
    steps=2,
    guidance_scale=4.0,
    prior_steps=2,
    prior_guidance_scale=4.0,
    strength=1.0,
    has_negative=False,
)


class GivenUpError(KandinskyBatchError):
    """A batch is not tried on this device any more; the driver has it made on another one."""


@dataclass(frozen=True)
class Guard:
    """Guards the calls of one stage. Travels to the workers by pickle.

    Attributes:
        stage: its name, as people read it.
        status: what a row gets that kills its process.
        limit: seconds that one call may take.
        attempts: handle of the attempts actor (workers/fault_tolerance/attempts.py); None guards nothing, for a
            stage used on its own.
    """

    stage: str
    status: RowStatus
    limit: float
    attempts: Any = None

    def run(self, batch: Batch, work: Callable[[Batch], Batch], probe: Callable[[], object] | None = None) -> Batch:
        """`work(batch)`, or the same made of its rows one by one where the batch has killed its process before.

        What comes back says how long that took.

        Args:
            batch: at least one sample is pending.
            work: adds columns and fails samples; gives the same for a row alone as in its batch.
            probe: a small call of the device that is known to be good; None where there is no device.

        Raises:
            GivenUpError: the device is broken, so that nothing can be said about the batch.
        """
        began = time.perf_counter()
        done = work(batch) if self.attempts is None else self._run(batch, work, probe)
        return done.took(self.stage, time.perf_counter() - began)

    def _run(self, batch: Batch, work: Callable[[Batch], Batch], probe: Callable[[], object] | None) -> Batch:
        worker = this_worker(self.stage)
        place = self._place(batch)
        orders = self._ask("begin", place, worker, probe is not None)
        if orders.taken_out is not None:
            _hold(orders.taken_out)
        try:
            done = self._as_ordered(batch, work, probe, orders, worker)
        except Exception:
            self._ask("end", place)
            raise
        # Not where this process is told to end, as Ray tells it before it kills it: then the batch is not done with.
        self._ask("end", place)
        return done

    def _as_ordered(
        self,
        batch: Batch,
        work: Callable[[Batch], Batch],
        probe: Callable[[], object] | None,
        orders: Orders,
        worker: Worker,
    ) -> Batch:
        place = self._place(batch)
        if probe is not None and orders.probe:
            self._probe(place, worker, probe)
        began = time.monotonic()
        if orders.alone:
            done = self._one_by_one(batch, work, orders, worker, copies=probe is not None)
            self._count(batch, done, began)
            return done
        done = self._in_calls(batch, work, orders.at_most or batch.samples.num_rows, worker)
        self._count(batch, done, began)
        if probe is not None and not done.pending:
            # Where every row fails the device may be what they have in common.
            self._probe(place, worker, probe)
        return done

    def _count(self, batch: Batch, done: Batch, began: float) -> None:
        made, tried = len(done.pending), len(batch.pending)
        seconds = time.monotonic() - began
        metrics.count_batch(self.stage, batch.bucket, made, tried - made, self.status, seconds)

    def _probe(self, place: Place, worker: Worker, probe: Callable[[], object]) -> None:
        self._ask("trying", place, "probe")
        try:
            with self._watched(worker, self.limit):
                probe()
        except Exception as error:
            self._ask("probed", place, worker, _one_line(error))
            _hold(f"{worker.name} fails a small call that is known to be good: {_one_line(error)}")
        self._ask("probed", place, worker, None)

    def prepare(self, batch: Batch, compile_shape: Callable[[], object]) -> None:
        """Have the batch's shape compiled before its clock starts: neither its time nor its limit counts that.

        A death meanwhile is the batch's, as in `run`; where its rows are tried one by one, they compile for themselves.
        What the call raises is left to the batch, which meets it again.
        """
        if self.attempts is None:
            with contextlib.suppress(Exception):
                compile_shape()
            return
        worker = this_worker(self.stage)
        orders = self._ask("begin", self._place(batch), worker, False)
        if orders.taken_out is not None:
            _hold(orders.taken_out)
        if not orders.alone:
            self._ask("compiling", self.stage, worker)
            with contextlib.suppress(Exception), self._watched(worker, START_LIMIT_S):
                compile_shape()

    def report_compiled(self, compilations: Sequence[Mapping[str, Any]]) -> None:
        """Record with the attempts actor what was compiled."""
        if self.attempts is not None and compilations:
            self._ask("compiled", self.stage, this_worker(self.stage), compilations)

    @contextmanager
    def starting(self) -> Iterator[dict[str, Any]]:
        """Around the loading of a model: what goes wrong is told to the driver, which nobody else would tell.

        What is put into the mapping becomes part of the run's record of this device, and how long it took.
        """
        facts: dict[str, Any] = {}
        if self.attempts is None:
            yield facts
            return
        worker = this_worker(self.stage)
        taken_out = self._ask("starting", self.stage, worker)
        if taken_out is not None:
            _hold(taken_out)
        began = time.perf_counter()
        try:
            with self._watched(worker, START_LIMIT_S):
                yield facts
        except Exception as error:
            self._ask("start_failed", self.stage, worker, _one_line(error), isinstance(error, UsageError))
            raise
        facts["loading_seconds"] = round(time.perf_counter() - began, 2)
        self._ask("ready", self.stage, worker, {**device.report(), **facts})

    def _in_calls(self, batch: Batch, work: Callable[[Batch], Batch], size: int, worker: Worker) -> Batch:
        """`work` on so many rows at a time."""
        parts = []
        for start in range(0, batch.samples.num_rows, size):
            part = replace(batch, samples=batch.samples.slice(start, size))
            if part.pending:
                with self._watched(worker, self.limit):
                    part = work(part)
            parts.append(part.samples)
        return replace(batch, samples=_together(parts))

    def _one_by_one(
        self, batch: Batch, work: Callable[[Batch], Batch], orders: Orders, worker: Worker, copies: bool
    ) -> Batch:
        place = self._place(batch)
        # A device call keeps its batch's shape, filled with copies of the one row: nothing is compiled anew, and the
        # image has the same bytes as beside its batch-mates.
        size = min(len(batch.pending), orders.at_most or len(batch.pending)) if copies else 1
        batch = batch.fail({row: RowError(self.status, words) for row, words in orders.killed.items()})
        parts = []
        pending = set(batch.pending)
        for row in range(batch.samples.num_rows):
            part = replace(batch, samples=batch.samples.slice(row, 1))
            if row in pending:
                self._ask("trying", place, row)
                with self._watched(worker, self.limit):
                    part = work(replace(batch, samples=batch.samples.take([row] * size)))
                part = replace(part, samples=part.samples.slice(min(row, size - 1), 1))
            parts.append(part.samples)
        return replace(batch, samples=_together(parts))

    def _place(self, batch: Batch) -> Place:
        return self.stage, batch.shard, batch.index

    def _ask(self, method: str, *arguments: Any) -> Any:
        import ray

        return ray.get(getattr(self.attempts, method).remote(*arguments))

    @contextmanager
    def _watched(self, worker: Worker, limit: float) -> Iterator[None]:
        """End this process if the time is up."""

        def end() -> None:
            try:
                words = f"did not finish within {limit:g} s"
                import ray

                ray.get(self.attempts.say.remote(worker.id, words), timeout=10)
            finally:
                os._exit(HUNG)

        timer = threading.Timer(limit, end)
        timer.daemon = True
        timer.start()
        faulthandler.dump_traceback_later(limit + SECOND_WATCHDOG_S, exit=True, file=2)
        try:
            yield
        finally:
            timer.cancel()
            faulthandler.cancel_dump_traceback_later()


def _together(parts: Sequence[pa.Table]) -> pa.Table:
    # A row that was not worked on lacks what the others got: nulls, as in a batch that was worked on as a whole.
    return pa.concat_tables(parts, promote_options="default").combine_chunks()


def _hold(why: str) -> NoReturn:
    """Do nothing with this device until the driver ends the pipeline, and keep Ray from giving it to anybody else."""
    time.sleep(HOLD_S)
    raise GivenUpError(why)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"


def this_worker(stage: str) -> Worker:
    """This process, as the attempts actor knows it."""
    import ray

    context = ray.get_runtime_context()
    node = context.get_node_id()
    npus = device.assigned_npus()
    host = socket.gethostname()
    return Worker(
        id=context.get_worker_id(),
        actor=context.get_actor_id() or "",
        node=node,
        device=f"{node}/npu-{','.join(npus)}" if npus else f"{node}/{stage}",
        name=f"NPU {','.join(npus)} of {host}" if npus else f"the CPU of {host}",
        npu=bool(npus),
        source=own_source(),
    )
