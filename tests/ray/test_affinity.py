"""Batches by shape, through Ray Data itself: every one is made once, an actor sees few of the shapes, and then ends."""

from __future__ import annotations

import gc
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
import ray
from ray._private.state import actors
from ray.data import ActorPoolStrategy, DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback

from jobs.engine.affinity import ShapeAffinity
from jobs.engine.cluster import nodes
from jobs.engine.elastic import BACKPRESSURE, GrowDecoder, RunAhead, actor_pools
from jobs.engine.pipeline import BLOCKS, Setup, begin_pipeline
from jobs.engine.pools import size_pools
from manifests.batch import Batch, Bucket
from manifests.config import RunConfig
from workers.embeddings.lookup import remembered
from workers.fault_tolerance.guard import PROBE_BUCKET
from workers.fault_tolerance.kept_attempts import start_attempts

pytestmark = pytest.mark.ray

SIZES = (512, 640, 768, 896)
BATCHES = 60
#: Of one batch after the other. In turns, four actors that keep step would each get the same one again and again.
HEIGHTS = random.Random(1).choices(SIZES, k=BATCHES)
ACTORS = 4
#: Rounds in which everybody makes a batch, whoever is fast: fewer than each has part in, were none ever idle.
ROUNDS = 10
#: Name of the file that says that all batches wait for the decoders, or are with them.
QUEUED = "queued"


class Prior:
    """Hands batches on."""

    def __call__(self, block: pa.Table) -> pa.Table:
        return Batch.from_block(block).to_block()


class Decoder:
    """Tells who it is.

    Args:
        together: a folder in which all actors tell what they begin: nobody makes its first batch before all batches are
            handed on, nor one of its first `ROUNDS` before everybody has as many.
        raises: batches that it cannot make.
        waits_for: a file that must be there before the last batches are made.
    """

    def __init__(self, together: str | None = None, raises: Sequence[int] = (), waits_for: str | None = None) -> None:
        self._together, self._raises, self._waits_for = together, raises, waits_for
        self._round = 0

    def __call__(self, block: pa.Table) -> pa.Table:
        batch = Batch.from_block(block)
        self._round += 1
        if self._together is not None and self._round <= ROUNDS:
            folder = Path(self._together)
            (folder / f"{self._round}-{os.getpid()}").touch()
            wait_until(lambda: (folder / QUEUED).exists())
            wait_until(lambda: len(list(folder.glob(f"{self._round}-*"))) >= ACTORS)
        if batch.index in self._raises:
            raise ZeroDivisionError
        while self._waits_for and batch.index >= BATCHES - 8 and not Path(self._waits_for).exists():
            time.sleep(0.1)
        assert batch.bucket is not None
        return pa.table({"process": [os.getpid()], "shape": [batch.bucket.shape], "index": [batch.index]})


def wait_until(come: Callable[[], bool]) -> None:
    """Until something has come that comes in every order of events."""
    deadline = time.monotonic() + 400
    while not come():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class TellQueued(ExecutionCallback):
    """Tells the decoders when nothing is before their queue any more."""

    folder: ClassVar[str] = ""

    def on_execution_step(self, executor: Any) -> None:
        """Called many times a second."""
        (_, _), (decoder, pool) = actor_pools(executor._topology)
        waiting = executor._topology[decoder].total_enqueued_input_blocks() + pool.num_tasks_in_flight()
        if waiting == BATCHES:
            Path(self.folder, QUEUED).touch()


def block(index: int) -> pa.Table:
    size = HEIGHTS[index]
    bucket = Bucket(**{**PROBE_BUCKET.model_dump(), "height": size, "width": size})
    return Batch(0, index, bucket, pa.table({"status": ["success"]})).to_block()


def line(callbacks: list[type[Any]], run_ahead: bool = True, **decoders: Any) -> Iterator[pa.Table]:
    """Four actors, four shapes; without `run_ahead` the prior may do all its work before the decoders begin."""
    context = DataContext.get_current()
    context.target_max_block_size = 1
    context.max_errored_blocks = -1
    context.enable_progress_bars = False
    context.custom_execution_callback_classes = callbacks
    name, policies = BACKPRESSURE
    context.set_config(name, policies if run_ahead else [policy for policy in policies if policy is not RunAhead])
    line = ray.data.from_blocks([block(index) for index in range(BATCHES)])
    pools: list[tuple[type[Any], int, dict[str, Any]]] = [(Prior, 1, {}), (Decoder, ACTORS, decoders)]
    for stage, size, arguments in pools:
        strategy = ActorPoolStrategy(size=size)
        line = line.map_batches(stage, compute=strategy, num_cpus=0.2, fn_constructor_kwargs=arguments, **BLOCKS)
    return iter(line.iter_batches(**BLOCKS))


def run(callbacks: list[type[Any]], **decoders: Any) -> list[dict[str, Any]]:
    return [row for made in line(callbacks, **decoders) for row in made.to_pylist()]


@pytest.mark.usefixtures("driver")
def test_an_actor_sees_few_shapes_and_every_batch_is_made_once(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made_by(*callbacks: type[Any]) -> list[dict[str, Any]]:
        folder = str(tmp_path_factory.mktemp("together"))
        monkeypatch.setattr(TellQueued, "folder", folder)
        # Where an actor idles, the others wait for it until they give up, and their batches are missing.
        return run([TellQueued, *callbacks], run_ahead=False, together=folder)

    by_shape, in_turns = made_by(ShapeAffinity), made_by()
    for made in (by_shape, in_turns):
        assert sorted(row["index"] for row in made) == list(range(BATCHES))
        # Nobody idles.
        assert min(Counter(row["process"] for row in made).values()) >= ROUNDS

    def met(made: list[dict[str, Any]]) -> int:
        return len({(row["process"], row["shape"]) for row in made})

    # Of sixteen; whoever is fast in the last rounds, in turns it is thirteen or more, and by shape eleven or fewer.
    assert met(by_shape) <= 3 * ACTORS < met(in_turns), (by_shape, in_turns)


@pytest.mark.usefixtures("driver")
def test_actors_end_with_their_line_and_leave_their_devices_to_the_next_one() -> None:
    with without_garbage_collection():
        run([ShapeAffinity])
        assert ended("MapWorker")


@pytest.mark.usefixtures("driver")
def test_the_prior_leaves_its_devices_when_it_is_done_also_where_a_batch_raised(tmp_path: Path) -> None:
    with without_garbage_collection():
        go_on = tmp_path / "go_on"
        made = line([GrowDecoder, ShapeAffinity], raises=[1], waits_for=str(go_on))
        next(made)
        assert ended("Prior")
        assert not ended("Decoder", within_s=0)
        go_on.touch()
        assert sum(1 for _ in made) == BATCHES - 2


@pytest.mark.usefixtures("driver")
def test_a_line_leaves_its_devices_also_where_a_batch_raised(tmp_path: Path) -> None:
    config = RunConfig(manifest=("m.parquet",), output=str(tmp_path), device="cpu")
    pools = size_pools(config, "cpu", nodes())
    with without_garbage_collection(), start_attempts() as attempts:
        setup = Setup(
            config,
            pools,
            (),
            attempts,
            lambda words: None,
            lambda words: None,
            lambda: None,
            remembered(config, "cpu"),
        )
        with begin_pipeline(setup):
            assert sum(1 for _ in line([ShapeAffinity], raises=[BATCHES - 1])) == BATCHES - 1
        assert ended("MapWorker")


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """What happens only when Python's own collector comes by is not to be counted on."""
    gc.disable()
    # pytest would keep what is logged, and with it an error and all that hangs on its frames.
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        gc.enable()


def ended(name: str, within_s: float = 300) -> bool:
    """All actors of ours with this in their names, of which there have been some, are dead."""
    mine = ray.get_runtime_context().get_job_id()
    deadline = time.monotonic() + within_s
    while True:
        found = [each for each in actors().values() if each["JobID"] == mine and name in each["ActorClassName"]]
        assert found
        if all(actor["State"] == "DEAD" for actor in found):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
