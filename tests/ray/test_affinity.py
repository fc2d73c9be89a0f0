"""Batches by shape, through Ray Data itself: every one is made once, an actor sees few of the shapes, and then ends."""

from __future__ import annotations

import gc
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
from ray._private.state import actors
from ray.cluster_utils import Cluster
from ray.data import ActorPoolStrategy, DataContext

from jobs.engine.affinity import ShapeAffinity
from jobs.engine.cluster import nodes
from jobs.engine.elastic import BACKPRESSURE, GrowDecoder
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


class Prior:
    """Hands batches on."""

    def __call__(self, block: pa.Table) -> pa.Table:
        return Batch.from_block(block).to_block()


class Decoder:
    """Takes its time, and tells who it is.

    Args:
        together: a folder in which all actors tell that they are there, before any of them makes a batch.
        raises: batches that it cannot make.
        waits_for: a file that must be there before the last batches are made.
    """

    def __init__(self, together: str | None = None, raises: Sequence[int] = (), waits_for: str | None = None) -> None:
        self._together, self._raises, self._waits_for = together, raises, waits_for
        if together is not None:
            Path(together, str(os.getpid())).touch()

    def __call__(self, block: pa.Table) -> pa.Table:
        while self._together is not None and len(os.listdir(self._together)) < ACTORS:
            time.sleep(0.05)
        time.sleep(0.3)
        batch = Batch.from_block(block)
        if batch.index in self._raises:
            raise ZeroDivisionError
        while self._waits_for and batch.index >= BATCHES - 8 and not Path(self._waits_for).exists():
            time.sleep(0.1)
        assert batch.bucket is not None
        return pa.table({"process": [os.getpid()], "shape": [batch.bucket.shape], "index": [batch.index]})


def block(index: int) -> pa.Table:
    size = HEIGHTS[index]
    bucket = Bucket(**{**PROBE_BUCKET.model_dump(), "height": size, "width": size})
    return Batch(0, index, bucket, pa.table({"status": ["success"]})).to_block()


@pytest.fixture
def driver(ray_cluster: Cluster) -> Iterator[None]:
    ray.init(ray_cluster.address, log_to_driver=False)
    yield
    ray.shutdown()
    DataContext._set_current(DataContext())


def line(callbacks: list[type[Any]], **decoders: Any) -> Iterator[pa.Table]:
    """Four actors, four shapes that come in turns."""
    context = DataContext.get_current()
    context.target_max_block_size = 1
    context.max_errored_blocks = -1
    context.enable_progress_bars = False
    context.custom_execution_callback_classes = callbacks
    context.set_config(*BACKPRESSURE)
    line = ray.data.from_blocks([block(index) for index in range(BATCHES)])
    pools: list[tuple[type[Any], int, dict[str, Any]]] = [(Prior, 1, {}), (Decoder, ACTORS, decoders)]
    for stage, size, arguments in pools:
        strategy = ActorPoolStrategy(size=size)
        line = line.map_batches(stage, compute=strategy, num_cpus=0.2, fn_constructor_kwargs=arguments, **BLOCKS)
    return iter(line.iter_batches(**BLOCKS))


def run(callbacks: list[type[Any]], **decoders: Any) -> list[dict[str, Any]]:
    return [row for made in line(callbacks, **decoders) for row in made.to_pylist()]


@pytest.mark.usefixtures("driver")
def test_an_actor_sees_few_shapes_and_every_batch_is_made_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    by_shape, in_turns = (
        run(callbacks, together=str(tmp_path_factory.mktemp("together"))) for callbacks in ([ShapeAffinity], [])
    )
    for made in (by_shape, in_turns):
        assert sorted(row["index"] for row in made) == list(range(BATCHES))

    def met(made: list[dict[str, Any]]) -> int:
        return len({(row["process"], row["shape"]) for row in made})

    assert met(by_shape) < met(in_turns), (by_shape, in_turns)
    # Nobody idles for it.
    assert min(Counter(row["process"] for row in by_shape).values()) >= BATCHES // 8


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
