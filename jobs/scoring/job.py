"""Scores for an output that was made without: shard after shard, and what is done stays done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from jobs.leases.lease import Lease
from jobs.run import run_folder
from jobs.scoring.batches import made_batches
from jobs.scoring.shards import clip_scores, has_columns, seal_with
from jobs.verification.output import planned_output, shards_of
from manifests import storage
from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.planning.plan import Plan, share_of
from manifests.scores import needs_clip, parse, spelled
from workers.checkpoints.locations import PRIOR, condition_size, local_folder
from workers.device import device
from workers.device.device import DeviceKind
from workers.embeddings.lookup import remembered
from workers.fault_tolerance.guard import Guard
from workers.kandinsky.batch_shape import rows_per_call
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


def score(config: RunConfig, names: Sequence[str], kind: DeviceKind, tell: Callable[[str], None]) -> Scored:
    """Add scores to the shards of a share; scores that an output has are kept.

    Args:
        config: `output`, `manifest` and `shards` are used, and `checkpoint` for where the run's lies now.

    Raises:
        UsageError: there is no finished run, the manifest is not the one it was made of, or there is no checkpoint.
        StorageError: something cannot be read or written; the same command goes on.
    """
    checkpoint, share = config.checkpoint, config.share
    config, planned, is_right = planned_output(config)
    config = config.model_copy(update={"checkpoint": checkpoint or config.checkpoint})
    if not is_right:
        raise UsageError(f"--manifest: {', '.join(config.manifest)} is not what {config.output} was made of")
    if not run_folder.is_finished(config.output):
        raise UsageError(f"{config.output} is not finished; start the job again until it is, and then score it")
    with Lease(config.output, share, tell) as lease, storage.fenced(lease.fence.check):
        numbers = share_of(planned, share)
        finish_reseals(config.output, numbers)
        wanted = parse(spelled([*config.score_names, *names]))
        columns = columns_of(wanted, config.checkpoint)
        # First: a start that is killed below leaves some shards with and some without.
        run_folder.set_scores(config.output, wanted)
        done = Scored()
        missing = [number for number in numbers if not has_columns(config.output, number, columns)]
        done.before = len(numbers) - len(missing)
        _score_shards(config, planned, missing, columns, kind, done, tell, lease.fence.check)
    return done


def _score_shards(
    config: RunConfig,
    planned: Plan,
    missing: Sequence[int],
    columns: Columns,
    kind: DeviceKind,
    done: Scored,
    tell: Callable[[str], None],
    check: Callable[[], None],
) -> None:
    scorer = _scorer(config, list(columns), kind) if missing else None
    memory, size = remembered(config, kind), condition_size(config.checkpoint)
    for number, batches in shards_of(config, planned, missing):
        check()
        found = {}
        if scorer is not None:
            found = clip_scores(made_batches(number, batches, memory, size, config), scorer, columns)
        done.images.update(seal_with(number, found, columns, config))
        done.shards += 1
        tell(f"{done.shards:,} of {len(missing):,} shards")


def _scorer(config: RunConfig, names: Sequence[str], kind: DeviceKind) -> Scorer | None:
    if not needs_clip(names):
        return None
    device.take(kind, "decoder", device.DeviceOptions.of(config, "decoder"))
    from workers.kandinsky import pipelines

    folder = local_folder(config.checkpoint, pipelines.parameter_shapes, [PRIOR])
    guard = Guard(STAGE, "failed_to_generate", config.device_timeout)
    return make_scorer(names, folder, device.dtype(kind), rows_per_call(config, kind), guard)
