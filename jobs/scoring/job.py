"""Scores for an output that was made without: shard after shard, and what is done stays done."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jobs.leases.lease import Lease
from jobs.run import run_folder
from jobs.scoring.shards import Lacking, lacking, score_shard
from jobs.scoring.work import Work
from jobs.verification.output import planned_output, windows_of
from manifests import storage
from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.planning.plan import Plan, share_of
from manifests.scores import spelled
from workers.device.device import DeviceKind, cards_here
from workers.scoring import aesthetic
from workers.scoring.columns import columns_of
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
        config: `output`, `manifest` and `shards` are used, `checkpoint` for where the run's lies now,
            `aesthetic_weights`, and of a cluster `device` and `decoder_actors`.
        kind: of this machine's device, where there is no cluster.
        keep_clip: keep the images' embeddings too, and make those again that are damaged.

    Raises:
        UsageError: there is no finished run, the manifest is not the one it was made of, or there is no checkpoint.
        StorageError: something cannot be read or written; the same command goes on.
        IncompleteRunError: devices or nodes of the cluster were lost; the same command goes on.
    """
    given, share = config, config.share
    config, planned, is_right = planned_output(config)
    if not is_right:
        raise UsageError(f"--manifest: {', '.join(config.manifest)} is not what {config.output} was made of")
    wanted = spelled([*config.score_names, *names])
    config = config.model_copy(
        update={
            "checkpoint": given.checkpoint,
            "device": given.device,
            "decoder_actors": given.decoder_actors,
            "scores": wanted,
            "keep_clip": config.keep_clip or keep_clip,
            "aesthetic_weights": given.aesthetic_weights or config.aesthetic_weights,
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
        for counts in _score_shards(config, planned, missing, kind, tell, lease.fence.check):
            done.images.update(counts)
            done.shards += 1
            tell(f"{done.shards:,} of {len(missing):,} shards")
    return done


def _score_shards(
    config: RunConfig,
    planned: Plan,
    missing: Mapping[int, Lacking],
    kind: DeviceKind,
    tell: Callable[[str], None],
    check: Callable[[], None],
) -> Iterator[Counter[str]]:
    """Score shards one after the other here, or on all devices of a cluster; yields the counts of each."""
    tasks = [(number, windows_of(planned, [number]), lack) for number, lack in missing.items()]
    if any(lack.asks_clip for lack in missing.values()) and len(tasks) > 1 and has_cluster(config):
        # Ray takes a second or two to import.
        from jobs.scoring.pool import score_on_cluster

        yield from score_on_cluster(config, tasks, check, tell)
        return
    work = Work(config, kind)
    for number, windows, lack in tasks:
        check()
        yield score_shard(number, windows, lack, work)


def has_cluster(config: RunConfig) -> bool:
    """True where a cluster is named, or this machine has more cards than one process takes.

    Asked without Ray, behind whose import MindSpore's may fail in the same process.
    """
    return os.environ.get("RAY_ADDRESS", "") not in ("", "local") or (config.device != "cpu" and cards_here() > 1)
