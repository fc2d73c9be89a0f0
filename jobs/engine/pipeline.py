"""The way of the data, from the plan's windows to the receipts of staged batches, as one Ray Data pipeline.

    read a window -> inputs -> prior pool -> decoder pool -> encode and stage -> receipt
    (CPU task)      (CPU)     (device)      (device)        (CPU)               (to the driver)

A plan of texts alone has no inputs to load, and no stage for them. Batches whose embeddings the store knows have a
way of their own to the decoder pool, past the prior; where all are known, there is no prior pool.
`run_decoder` has the second half of it alone, `embedded` the first one.
Every block is one batch (manifests/batch.py says what it holds after which stage). The stages themselves are
plain functions and classes in `workers/`; nothing here knows what they do.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, TaskPoolStrategy
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from jobs.engine.broken_devices import TakenOut
from jobs.engine.cluster import ACTOR_FAULT_OPTIONS, ClusterShrankError, Watch, full_words, reason, set_up_ray_data
from jobs.engine.elastic import engine_state
from jobs.engine.ledger import Ledger, Wanted, unfenced
from jobs.engine.placement import Places, card_places
from jobs.engine.pools import Pools, PoolSize, shrink, with_less_memory, without_prior
from jobs.engine.store_lookup import WorkSplit, split_work
from jobs.monitoring.facts import EngineState
from manifests import storage
from manifests.batch import Batch, on_each, pack
from manifests.commit import Receipt
from manifests.config import RunConfig
from manifests.embeddings.store import EmbeddingStore
from manifests.errors import IncompleteRunError, KandinskyBatchError, RowError, RowStatus, StorageError
from manifests.planning.plan import Plan, Window, window_batches
from manifests.records import GIVEN_EMBEDDINGS
from workers.checkpoints.locations import condition_size
from workers.embeddings.lookup import IfUnknown, Memory, recall
from workers.fault_tolerance.attempts import PROBE_ATTEMPTS, WHOLE_ATTEMPTS, News
from workers.fault_tolerance.guard import START_LIMIT_S, Guard
from workers.fault_tolerance.kept_attempts import session_folder
from workers.fault_tolerance.timeline import Timeline
from workers.kandinsky.graph_choice import NOTHING, GraphChoice
from workers.scoring.columns import Columns, columns_of, with_scores
from workers.stages.decoder import Decoder
from workers.stages.encode import encode_images
from workers.stages.inputs import load_inputs, without_inputs
from workers.stages.prior import Prior
from workers.stages.shards import write_part

#: A window, and which of its batches are wanted.
Work = tuple[Window, Wanted]

#: (shard, batch) -> position in the batch -> status and message.
FailedEarlier = Mapping[tuple[int, int], Mapping[int, tuple[RowStatus, str]]]

#: Blocks that a reader may have ready where they are texts only. Ray Data fetches what is ready about eight times a
#: second, and lets a task have two blocks ready otherwise; a block and its metadata are two objects.
TEXT_BLOCKS_AHEAD = 16

#: The stage whose batches wait for storage rather than for a device.
INPUTS = "inputs"

#: Seconds to wait for what a chart is made of.
TIMELINE_S = 30.0

#: As whole blocks of Arrow: a stage gets the one batch that a block is.
BLOCKS: Mapping[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}


class EngineStoppedError(KandinskyBatchError):
    """Ray Data ended the pipeline early; `__cause__` says why."""


@dataclass(frozen=True)
class Setup:
    """What a run has to run on.

    Attributes:
        pools: sizes of the device pools and the CPU shares of everything.
        tasks: those of the plan, sorted.
        attempts: the run's attempts actor (workers/fault_tolerance/attempts.py).
        notify: hears what a person should know while the run goes on.
        notify_state: hears every second how the engine is.
        look: asked every second, from another thread, and told how many batches are being worked on behind the inputs,
            or None where nobody knows; what it raises ends the run.
        memory: the embedding store, if there is one.
        trust_index: batches that the store's index knows do without the prior. Where a part turns out damaged they
            come back as nothing, and then a pipeline without this trust makes them.
        taken_out: devices that broke while it ran.
        told: ids of the lost processes, fallbacks and lines of relief that `notify` has heard of.
        graphs: what the pools' actors compile.
        several_shapes: the decoder's batches differ in shape, so that who gets which matters.
        fence: asked by every process before it replaces or removes a file of the output.
    """

    config: RunConfig
    pools: Pools
    tasks: tuple[str, ...]
    attempts: Any
    notify: Callable[[str], None]
    notify_state: Callable[[EngineState], None]
    look: Callable[[int | None], None]
    memory: Memory
    trust_index: bool = True
    taken_out: TakenOut = field(default_factory=TakenOut)
    told: set[str] = field(default_factory=set)
    graphs: GraphChoice = NOTHING
    several_shapes: bool = False
    fence: Callable[[], None] = unfenced


def run_pipeline(setup: Setup, work: Sequence[Work]) -> Iterator[Receipt]:
    """Make the wanted batches of these windows; yields each one's receipt as soon as it is staged.

    A batch may be given up and come back as nothing: the caller compares receipts with what was wanted.

    Args:
        work: at least one window with at least one wanted batch.

    Raises:
        KandinskyBatchError: a pool cannot start, or no device is left for one.
        ClusterShrankError: the pools must be smaller: nodes are gone, a device is broken, or memory is short.
        EngineStoppedError: the pools could not start, made no progress, or met too many errors.
        StorageError: a part could not be written.
    """
    split = split_by_store(setup, work)
    if not split.with_prior:
        setup = replace(setup, pools=without_prior(setup.pools, setup.taken_out.nodes()))
    with begin_pipeline(setup) as places:
        yield from _receipts(_dataset(setup, split, places))


def run_decoder(setup: Setup, work: Sequence[Work], failed: FailedEarlier) -> Iterator[Receipt]:
    """As `run_pipeline`, of batches whose embeddings are stored or brought; others are left out.

    Args:
        setup: its pools have no prior.
        failed: of these batches the rows that the prior has failed.
    """
    with begin_pipeline(setup) as places:
        yield from _receipts(_dataset(setup, WorkSplit(without_prior=list(work)), places, failed))


@contextmanager
def begin_pipeline(setup: Setup) -> Iterator[Places]:
    """Set Ray Data up for a pipeline, and hold the places of its actors while it runs."""
    config, pools = setup.config, setup.pools
    # A batch may spend the limit on each of its rows, and on itself before.
    slowest = config.device_timeout * (config.batch_size + WHOLE_ATTEMPTS + PROBE_ATTEMPTS)
    slowest += START_LIMIT_S * WHOLE_ATTEMPTS if setup.graphs.any else 0
    set_up_ray_data(slowest, _look_up(setup), max(pools.decoder.most, 1))
    try:
        with card_places(pools) as places:
            yield places
    finally:
        # An error that Ray Data has caught keeps the pipeline's actors in a cycle of frames, and they keep their
        # devices.
        gc.collect()


def split_by_store(setup: Setup, work: Sequence[Work]) -> WorkSplit:
    """What needs the prior, and what does not; all of it needs the prior where nothing says otherwise."""
    if setup.config.stage == "decode":
        return WorkSplit(without_prior=list(work))
    brings_some = any(name in GIVEN_EMBEDDINGS for name in work[0][0].extras.names)
    knows_some = setup.memory.url is not None and EmbeddingStore(setup.memory.url).index_files
    if not setup.trust_index or not (brings_some or knows_some):
        return WorkSplit(with_prior=list(work))
    split = split_work(setup.config, work, setup.memory)
    if split.rows > split.rows_to_embed:
        known = f"the embeddings of {split.rows - split.rows_to_embed} of {split.rows} images are known"
        setup.notify(known if split.with_prior else f"{known}: no prior is started")
    return split


def after_loss(setup: Setup) -> Setup:
    """What to run on when a pipeline has ended with `ClusterShrankError`.

    Raises:
        IncompleteRunError: what is left of the cluster is too small for any pipeline.
    """
    taken_out = setup.taken_out.hold(_news(setup).broken, setup.notify)
    # Whoever held a batch was ended with its pipeline, and by no fault of the batch. Said only now, when the processes
    # that had the devices are known to be gone, and with them whatever they still had to say.
    ray.get(setup.attempts.pipeline_ended.remote())
    shortage = _news(setup).shortage
    try:
        pools = shrink(setup.pools, taken_out.nodes())
    except IncompleteRunError as error:
        raise IncompleteRunError("; ".join([str(error), *(each.words for each in taken_out.devices)])) from error
    smaller = with_less_memory(pools) if shortage is not None and shortage.by_pools else None
    if smaller is not None:
        pools = smaller
        # Whoever goes on tells it.
        setup.told.add(ray.get(setup.attempts.relieve.remote(pools.in_words, None)))
    return replace(setup, pools=pools, taken_out=taken_out)


def windows_left(planned: Plan, ledger: Ledger) -> list[Work]:
    """The windows that something is missing of, each with what that is."""
    left: list[Work] = []
    for window in planned.windows:
        shards = range(window.first_shard, window.first_shard + window.shards)
        missing = ledger.missing_of(shard for shard in shards if shard in ledger.batches)
        if missing.count:
            left.append((window, missing))
    return left


def devices(setup: Setup) -> tuple[dict[str, Any], ...]:
    """What the pools' actors have run on so far; nothing where nobody can tell any more."""
    return _record(setup.attempts.devices)


def compilations(setup: Setup) -> tuple[dict[str, Any], ...]:
    """What the pools' actors have compiled so far; nothing where nobody can tell any more."""
    return _record(setup.attempts.compilations)


def _record(method: Any) -> tuple[dict[str, Any], ...]:
    try:
        return tuple(ray.get(method.remote(), timeout=TIMELINE_S))
    except Exception:  # whatever has become of the cluster, a run does not fail for want of a record
        return ()


def losses(setup: Setup) -> tuple[dict[str, int], int, tuple[str, ...]]:
    """Processes that were lost so far, by cause, the batches made again because of it, and what was done for memory."""
    news = _news(setup)
    return dict(news.lost_by_cause), news.batches_again, tuple(news.relief)


def timeline(attempts: Any) -> Timeline | None:
    """When the actors of a run's pools were in calls so far; None where nobody can tell any more."""
    try:
        found: Timeline = ray.get(attempts.timeline.remote(), timeout=TIMELINE_S)
    except Exception:  # whatever has become of the cluster, a run does not fail for want of a chart
        return None
    return found


def _news(setup: Setup) -> News:
    """What the attempts actor knows; what is new of losses, fallbacks and relief is told."""
    news: News = ray.get(setup.attempts.news.remote())
    told = [(loss.id, loss.words) for loss in news.lost] + [(words, words) for words in (*news.fallbacks, *news.relief)]
    for name, words in told:
        if name not in setup.told:
            setup.told.add(name)
            setup.notify(words)
    return news


def _dataset(setup: Setup, split: WorkSplit, places: Places, failed: FailedEarlier | None = None) -> Any:
    """The pipeline as a Ray dataset of blocks with receipts."""
    config, pools, attempts = setup.config, setup.pools, setup.attempts
    ways = []
    if split.with_prior:
        ways.append(embedded(setup, split.with_prior, places))
    if split.without_prior:
        if_unknown: IfUnknown = "fail" if config.stage == "decode" else "leave out"
        ways.append(_loaded(setup, split.without_prior, if_unknown, failed))
    dataset = ways[0].union(ways[1]) if len(ways) > 1 else ways[0]
    # It grows to its full size when the prior is done (jobs/engine/elastic.py).
    actors = _actors(setup, places, PoolSize(pools.decoder.least, pools.beside_prior), setup.tasks)
    dataset = dataset.map_batches(Decoder, **actors, **BLOCKS)
    encoding = Guard("encode", "failed_to_encode", config.device_timeout, attempts)
    columns = columns_of(config.score_names, config.checkpoint)
    given = (config, encoding, columns, setup.fence)
    return dataset.map_batches(encode_and_stage, fn_args=given, **task_arguments(setup), **BLOCKS)


def embedded(
    setup: Setup, work: Sequence[Work], places: Places, images: bool = True, together: int | None = None
) -> Any:
    """The pipeline as far as the prior: batches with their embeddings.

    Args:
        images: load them too, which the decoder needs; else only what the prior needs.
        together: batches that travel as one row (`manifests.batch.pack`); None packs none.
    """
    actors = _actors(setup, places, setup.pools.prior)
    stage: type[Any] = Prior
    if together is not None:
        stage = OnEach
        actors["fn_constructor_args"] = (Prior, *actors["fn_constructor_args"])
    dataset = _loaded(setup, work, "pass", images=images, together=together)
    return dataset.map_batches(stage, **actors, **BLOCKS)


class OnEach:
    """A stage of a device pool for rows that hold several batches."""

    def __init__(self, stage: type[Any], *arguments: Any) -> None:
        self._stage = stage(*arguments)

    def __call__(self, block: pa.Table) -> pa.Table:
        """Have each of them made."""
        return on_each(block, self._stage)


def _loaded(
    setup: Setup,
    work: Sequence[Work],
    if_unknown: IfUnknown,
    failed: FailedEarlier | None = None,
    images: bool = True,
    together: int | None = None,
) -> Any:
    """The pipeline as far as the inputs, with the embeddings that are known."""
    config, task = setup.config, task_arguments(setup)
    size = condition_size(config.checkpoint)
    source = PlannedBatches(config, work, setup.memory, if_unknown, failed or {}, together=together)
    by_shape = setup.several_shapes and if_unknown != "pass"
    if not by_shape and not any(_has_inputs(task, images) for task in setup.tasks):
        # Nothing to fetch and to decode, so there is no stage for it, which would cost each batch a turn of the engine.
        source.ready = True
        ahead = {"_generator_backpressure_num_objects": 2 * TEXT_BLOCKS_AHEAD}
        return ray.data.read_datasource(source, override_num_blocks=len(work), ray_remote_args=ahead, **task)
    # Another share than the next stage's keeps Ray Data from fusing the two, which would decode all images
    # of a window one after the other.
    share = task["num_cpus"] / 2
    dataset = ray.data.read_datasource(source, override_num_blocks=len(work), **{**task, "num_cpus": share})
    loading = Guard(INPUTS, "failed_to_load", config.device_timeout, setup.attempts)
    return dataset.map_batches(inputs, fn_args=(size, loading, config.input_timeout, images), **task, **BLOCKS)


def task_arguments(setup: Setup) -> dict[str, Any]:
    """Ray Data's arguments for a stage of CPU tasks."""
    return {"compute": TaskPoolStrategy(setup.pools.tasks_at_once), "num_cpus": setup.pools.task_share}


def _actors(setup: Setup, places: Places, size: PoolSize, *more: object) -> dict[str, Any]:
    """Ray Data's arguments for a pool of device actors."""
    # A device context may belong to the thread that made it: calls stay on the actor's main thread.
    strategy = ActorPoolStrategy(min_size=size.least, max_size=size.most, enable_true_multi_threading=True)
    constructor = (setup.config, setup.pools.kind, setup.attempts, setup.graphs, *more)
    options = {**setup.pools.actor_options(), **ACTOR_FAULT_OPTIONS, "ray_remote_args_fn": places()}
    return {"compute": strategy, "fn_constructor_args": constructor, **options}


def _receipts(dataset: Any) -> Iterator[Receipt]:
    """Run the pipeline."""
    for block in blocks_of(dataset):
        for text, refused in zip(*(block.column(name).to_pylist() for name in ("receipt", "refused")), strict=True):
            if refused is not None:
                raise StorageError(refused)
            yield Receipt.model_validate_json(text)


def blocks_of(dataset: Any) -> Iterator[pa.Table]:
    """Run a pipeline.

    Raises:
        KandinskyBatchError: as `run_pipeline`.
    """
    try:
        # What is fetched ahead would be told one batch late, which takes minutes each.
        yield from dataset.iter_batches(prefetch_batches=0, **BLOCKS)
    except Exception as error:  # Ray has several trees of errors; whatever it is, the engine has stopped
        if isinstance(error, KandinskyBatchError) and not isinstance(error, ray.exceptions.RayError):
            raise
        # Whatever the engine says then, this is what came first.
        raise EngineStoppedError(full_words(session_folder()) or reason(str(error) or repr(error))) from error


def _look_up(setup: Setup) -> Callable[[Any], None]:
    """Asks the attempts actor whether the run must end or a device be done without."""
    watch = Watch(setup.pools.needs, setup.taken_out.nodes)

    def look_up(topology: Any) -> None:
        news = _news(setup)
        # First, because what ends the run below may be what came of it.
        setup.notify_state(engine_state(setup.pools, topology, news))
        setup.look(sum(count for stage, count in news.working.items() if stage != INPUTS))
        watch.check()
        if news.trouble is not None:
            raise news.trouble
        new = setup.taken_out.new(news.broken)
        if new:
            raise ClusterShrankError("; ".join(each.words for each in new))
        if news.shortage is not None:
            if news.shortage.by_pools and with_less_memory(setup.pools) is not None:
                raise ClusterShrankError(news.shortage.words)
            any_number = setup.pools.kind == "cpu" and not setup.graphs.any
            ray.get(setup.attempts.relieve.remote(None, setup.config.batch_size if any_number else None))

    return look_up


@dataclass(eq=False)
class PlannedBatches(Datasource):
    """Ray Data's source: one read task per window, which plans it again and streams one block per batch.

    Attributes:
        failed: rows that the prior has failed.
        ready: no batch has inputs to fetch; the batches then leave the source as `inputs` would leave them.
        together: batches that travel as one row; None packs none.
    """

    config: RunConfig
    work: Sequence[Work]
    memory: Memory
    if_unknown: IfUnknown
    failed: FailedEarlier = field(default_factory=dict)
    ready: bool = False
    together: int | None = None

    def __post_init__(self) -> None:
        super().__init__()

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown before the windows are read."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """One task per window, whatever parallelism Ray Data would like."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(self._reader(*item), unknown) for item in self.work]

    def _reader(self, window: Window, wanted: Wanted) -> Callable[[], Iterable[pa.Table]]:
        config, memory, if_unknown = self.config, self.memory, self.if_unknown
        ready, together = self.ready, self.together
        shards = range(window.first_shard, window.first_shard + window.shards)
        failed = {place: rows for place, rows in self.failed.items() if place[0] in shards}

        def read() -> Iterator[pa.Table]:
            batches = (wanted.narrow(batch) for batch in window_batches(config, window, wanted))
            batches = (_with_failures(batch, failed) for batch in batches) if failed else batches
            found = recall(batches, memory, if_unknown)
            blocks = ((without_inputs(batch) if ready else batch).to_block() for batch in found)
            if together is None:
                yield from blocks
                return
            while some := list(itertools.islice(blocks, together)):
                yield pack(some)

        return read


def _with_failures(batch: Batch, failed: FailedEarlier) -> Batch:
    rows = failed.get((batch.shard, batch.index), {})
    return batch.fail({row: RowError(status, words) for row, (status, words) in rows.items()})


def _has_inputs(task: str, images: bool) -> bool:
    """Whether requests of a task name files; those that the decoder sees count where `images` is set."""
    return task == "interpolate" or (images and task != "text2img")


def inputs(block: pa.Table, size: int, guard: Guard, limit_s: float, images: bool = True) -> pa.Table:
    """Stage: images and masks of one batch, decoded; each is to be read within `limit_s` seconds.

    Args:
        images: load what the decoder needs, too; else only an interpolation has something to load.
    """
    return on_each(block, lambda each: _inputs(each, size, guard, limit_s, images))


def _inputs(block: pa.Table, size: int, guard: Guard, limit_s: float, images: bool) -> pa.Table:
    batch = Batch.from_block(block)
    if batch.bucket is None or not _has_inputs(batch.bucket.task, images) or not batch.pending:
        return without_inputs(batch).to_block()
    # Image codecs are C libraries that read what anybody may have written.
    return guard.run(batch, lambda rows: load_inputs(rows, size, limit_s)).to_block()


def encode_and_stage(
    block: pa.Table, config: RunConfig, guard: Guard, columns: Columns, fence: Callable[[], None]
) -> pa.Table:
    """Stage: image files of one batch, staged as a part; what goes on is the receipt, or why there is none.

    Args:
        columns: of the scores.
        fence: asked before anything is replaced.
    """
    receipt = refused = None
    batch = Batch.from_block(block).with_copies()
    if batch.pending:
        batch = guard.run(batch, lambda rows: encode_images(rows, config))
    else:
        batch = encode_images(batch, config)
    batch = with_scores(batch, columns)
    try:
        with storage.fenced(fence):
            receipt = write_part(batch, config.output).model_dump_json()
    except StorageError as error:
        # As data: an exception would be one errored block of several that are allowed, and every next batch
        # would be computed only to meet the same full disk.
        refused = str(error)
    return pa.table({"receipt": pa.array([receipt], pa.string()), "refused": pa.array([refused], pa.string())})
