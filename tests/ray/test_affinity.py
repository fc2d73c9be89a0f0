"""Batches by shape, through Ray Data itself: every one is made once, and an actor sees few of the shapes."""

from __future__ import annotations

import gc
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
import ray
from ray._private.state import actors
from ray.cluster_utils import Cluster
from ray.data import ActorPoolStrategy, DataContext

from jobs.affinity import ShapeAffinity
from jobs.elastic import BACKPRESSURE
from jobs.pipeline import BLOCKS
from manifests.batch import Batch, Bucket
from workers.guard import PROBE_BUCKET

pytestmark = pytest.mark.ray

SIZES = (512, 640, 768, 896)
BATCHES = 60


class Prior:
    """Hands batches on."""

    def __call__(self, block: pa.Table) -> pa.Table:
        return Batch.from_block(block).to_block()


class Decoder:
    """Takes its time, and tells who it is."""

    def __call__(self, block: pa.Table) -> pa.Table:
        time.sleep(0.3)
        batch = Batch.from_block(block)
        assert batch.bucket is not None
        return pa.table({"process": [os.getpid()], "shape": [batch.bucket.shape], "index": [batch.index]})


def block(index: int) -> pa.Table:
    size = SIZES[index % len(SIZES)]
    bucket = Bucket(**{**PROBE_BUCKET.model_dump(), "height": size, "width": size})
    return Batch(0, index, bucket, pa.table({"status": ["success"]})).to_block()


@pytest.fixture
def driver(ray_cluster: Cluster) -> Iterator[None]:
    ray.init(ray_cluster.address, log_to_driver=False)
    yield
    ray.shutdown()
    DataContext._set_current(DataContext())


def run(callbacks: list[type[Any]]) -> list[dict[str, Any]]:
    """Four actors, four shapes that come in turns."""
    context = DataContext.get_current()
    context.target_max_block_size = 1
    context.enable_progress_bars = False
    context.custom_execution_callback_classes = callbacks
    context.set_config(*BACKPRESSURE)
    line = ray.data.from_blocks([block(index) for index in range(BATCHES)])
    for stage, size in ((Prior, 1), (Decoder, 4)):
        line = line.map_batches(stage, compute=ActorPoolStrategy(size=size), num_cpus=0.2, **BLOCKS)
    return [row for made in line.iter_batches(**BLOCKS) for row in made.to_pylist()]


@pytest.mark.usefixtures("driver")
def test_an_actor_sees_few_shapes_and_every_batch_is_made_once() -> None:
    by_shape, in_turns = run([ShapeAffinity]), run([])
    for made in (by_shape, in_turns):
        assert sorted(row["index"] for row in made) == list(range(BATCHES))

    def met(made: list[dict[str, Any]]) -> int:
        return len({(row["process"], row["shape"]) for row in made})

    assert met(by_shape) < met(in_turns), (by_shape, in_turns)
    # Nobody idles for it.
    assert min(Counter(row["process"] for row in by_shape).values()) >= BATCHES // 8


@pytest.mark.usefixtures("driver")
def test_actors_end_with_their_line_and_leave_their_devices_to_the_next_one() -> None:
    gc.disable()
    try:
        run([ShapeAffinity])
        deadline = time.monotonic() + 60
        while (left := alive()) and time.monotonic() < deadline:
            time.sleep(0.2)
    finally:
        gc.enable()
    assert left == []


def alive() -> list[str]:
    """Actors of pools that have not ended."""
    mine = ray.get_runtime_context().get_job_id()
    found = [actor for actor in actors().values() if actor["JobID"] == mine and "MapWorker" in actor["Name"]]
    return [actor["Name"] for actor in found if actor["State"] != "DEAD"]
