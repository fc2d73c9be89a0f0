"""Scores for an output that was made without: shard after shard, and what is done stays done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from jobs.leases.lease import Lease
from jobs.run import run_folder
from jobs.scoring.batches import made_batches
from jobs.scoring.shards import Lacking, clip_scores, lacking, seal_with
from jobs.verification.output import planned_output, shards_of
from manifests import storage
from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.planning.plan import Plan, share_of
from manifests.scores import spelled
from workers.checkpoints.locations import PRIOR, condition_size, local_folder
from workers.device import device
from workers.device.device import DeviceKind
from workers.embeddings.lookup import remembered
from workers.fault_tolerance.guard import Guard
from workers.kandinsky.batch_shape import FullCalls
from workers.kandinsky.graph_choice import NOTHING
from workers.scoring import aesthetic
from workers.scoring.columns import Columns, columns_of
from workers.scoring.scorer import STAGE, Scorer, make_scorer
from workers.stages.reseal import finish_reseals


@dataclass
class Scored:
    """What came of it.

    Attributes:
        shards: that this start has sealed anew; `before` had their scores.
        images: that have a value, by score, of these shards.
    """

    shards: int = 0
    before: int = 0
    images: Counter[str] = field(default_factory=Counter)


def score(
    config: RunConfig, names: Sequence[str], keep_clip: bool, kind: DeviceKind, tell: Callable[[str], None]
) -> Scored:
    """Add scores to the shards of a share; scores that an output has are kept.

    Args:
        config: `output`, `manifest` and `shards` are used, and `checkpoint` for where the run's lies now,
            and `aesthetic_weights`.
        keep_clip: keep the images' embeddings too, and make those again that are damaged.

    Raises:
        UsageError: there is no finished run, the manifest is not the one it was made of, or there is no checkpoint.
        StorageError: something cannot be read or written; the same command goes on.
    """
    checkpoint, weights, share = config.checkpoint, config.aesthetic_weights, config.share
    config, planned, is_right = planned_output(config)
    config = config.model_copy(update={"checkpoint": checkpoint or config.checkpoint})
    if not is_right:
        raise UsageError(f"--manifest: {', '.join(config.manifest)} is not what {config.output} was made of")
    wanted = spelled([*config.score_names, *names])
    config = config.model_copy(
        update={
            "scores": wanted,
            "keep_clip": config.keep_clip or keep_clip,
            "aesthetic_weights": weights or config.aesthetic_weights,
        }
    )
    predictor = aesthetic.settled(config)
    if not run_folder.is_finished(config.output):
        raise UsageError(f"{config.output} is not finished; start the job again until it is, and then score it")
    with Lease(config.output, share, tell) as lease, storage.fenced(lease.fence.check):
        numbers = share_of(planned, share)
        finish_reseals(config.output, numbers)
        columns = columns_of(config.score_names, config.checkpoint)
        # First: a start that is killed below leaves some shards with and some without.
        aesthetic.keep(predictor, config)
        run_folder.set_scores(config)
        done = Scored()
        looked = {number: lacking(config, number, columns, keep_clip) for number in numbers}
        missing = {number: lack for number, lack in looked.items() if lack is not None}
        done.before = len(numbers) - len(missing)
        _score_shards(config, planned, missing, columns, kind, done, tell, lease.fence.check)
    return done


def _score_shards(
    config: RunConfig,
    planned: Plan,
    missing: Mapping[int, Lacking],
    columns: Columns,
    kind: DeviceKind,
    done: Scored,
    tell: Callable[[str], None],
    check: Callable[[], None],
) -> None:
    scorer = _scorer(config, kind) if any(lack.asks_clip for lack in missing.values()) else None
    memory, size = remembered(config, kind), condition_size(config.checkpoint)
    for number, batches in shards_of(config, planned, missing):
        check()
        found, lack = {}, missing[number]
        if scorer is not None and lack.asks_clip:
            made = made_batches(number, batches, memory, size, config)
            found = clip_scores(made, scorer.of(lack.names, lack.clip))
        done.images.update(seal_with(number, lack, found, columns, config))
        done.shards += 1
        tell(f"{done.shards:,} of {len(missing):,} shards")


def _scorer(config: RunConfig, kind: DeviceKind) -> Scorer | None:
    if not config.asks_clip:
        return None
    device.take(kind, "decoder", device.DeviceOptions.of(config, "decoder"))
    from workers.kandinsky import pipelines

    folder = local_folder(config.checkpoint, pipelines.parameter_shapes, [PRIOR])
    guard = Guard(STAGE, "failed_to_generate", config.device_timeout)
    return make_scorer(config, folder, device.dtype(kind), FullCalls.of(config, kind, NOTHING).clip, guard)
