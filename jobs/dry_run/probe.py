"""`plan.py --probe`: time a few batches of every bucket with the real pipeline, where no run has measured any yet.

One prior and one decoder actor make them, so that the second batch of a bucket finds everything compiled that the
first one had to wait for. The parts are written beside the output's run files and removed again.
"""

from __future__ import annotations

from functools import partial

from jobs.cost.step_times import Measured, StepTimes, Stopwatch
from jobs.cost.weights import weights_of
from jobs.cost.work import device_time
from jobs.engine.cluster import cluster, engine_log, reason
from jobs.engine.pipeline import EngineStoppedError, Setup, compilations, devices, run_pipeline
from jobs.engine.pools import npus, size_pools
from jobs.monitoring.progress import RunProgress
from jobs.schedule.arrange import arrange
from manifests import storage
from manifests.batch import Batch, Bucket
from manifests.config import NO_EMBEDDINGS, RunConfig
from manifests.errors import IncompleteRunError
from manifests.planning.plan import Plan, Window, planned_batches
from workers.checkpoints import locations
from workers.device.device import choose_device
from workers.embeddings.lookup import remembered
from workers.fault_tolerance.kept_attempts import start_attempts
from workers.kandinsky.graph_choice import EVERYTHING, NOTHING

#: Batches of each bucket: one that compiles and loads, and one that is timed.
BATCHES = 2

#: Where parts go, under the output: every node can write there.
FOLDER = "_run/probe"


class _Chosen(frozenset[tuple[int, int]]):
    """The batches to make of one window, all rows of each."""

    def narrow(self, batch: Batch) -> Batch:
        """All of the batch."""
        return batch


def probe(config: RunConfig, planned: Plan, progress: RunProgress) -> StepTimes:
    """Make `BATCHES` of every bucket and time them.

    Raises:
        UsageError: the pools cannot run on this cluster, or the checkpoint is of no use.
        IncompleteRunError: the engine stopped, or no image could be made.
        StorageError: the output cannot be written.
    """
    locations.check(config.checkpoint, planned.samples_by_task)
    work, images = _choose(config, planned)
    url = storage.join(config.output, FOLDER)
    alone = config.model_copy(update={"output": url, "prior_actors": "1", "decoder_actors": "1"})
    # The prior is to be timed as well, whatever is known already.
    alone = alone.model_copy(update={"embeddings": NO_EMBEDDINGS, "stage": "all"})
    graphs = EVERYTHING if config.graph == "on" else NOTHING
    watch = Stopwatch()
    progress.phase("starting Ray")
    with engine_log() as said, cluster(progress.note) as nodes, start_attempts() as attempts:
        device = choose_device(config, npus(nodes))
        pools = size_pools(config, device.kind, nodes)
        progress.note(f"device: {device.kind} ({device.reason})")
        progress.phase("timing batches:")
        progress.start(images)
        pools_alone, memory = size_pools(alone, device.kind, nodes), remembered(alone, device.kind)
        setup = Setup(
            alone,
            pools_alone,
            planned.tasks,
            attempts,
            progress.note,
            progress.engine,
            lambda working: None,
            memory,
            graphs=graphs,
        )
        try:
            for receipt in run_pipeline(setup, work):
                progress.received(receipt)
                watch.add(receipt)
        except EngineStoppedError as error:
            raise IncompleteRunError(f"no batch could be timed: {error}") from error
        finally:
            storage.remove(url, recursive=True)
        measured = Measured(graphs, compilations(setup), devices(setup))
        times = watch.record(device.kind, config.call_limit, pools, measured)
        if device.kind == "cpu" and times.buckets:
            # How many actors the run has there is decided by how long they take.
            time = device_time(config, planned, device.kind, (url, times))
            weights = partial(weights_of, config.checkpoint, planned.tasks)
            pools = arrange(config, planned, device.kind, nodes, time, progress.note, weights).pools
            times = watch.record(device.kind, config.call_limit, pools, measured)
    if not times.buckets:
        raise IncompleteRunError(f"no batch could be timed: {reason(said.text)}")
    return times


def _choose(config: RunConfig, planned: Plan) -> tuple[list[tuple[Window, _Chosen]], int]:
    """The first batches of every bucket, by window, and how many images that is."""
    missing: dict[Bucket, int] = {bucket: min(BATCHES, count.batches) for bucket, count in planned.buckets.items()}
    work, images = [], 0
    for window in planned.windows:
        if not any(missing.values()):
            break
        chosen = set()
        for shard, batch in planned_batches(config, window):
            if batch.bucket is not None and missing[batch.bucket]:
                missing[batch.bucket] -= 1
                chosen.add((shard, batch.number))
                images += batch.stop - batch.start
        if chosen:
            work.append((window, _Chosen(chosen)))
    return work, images
