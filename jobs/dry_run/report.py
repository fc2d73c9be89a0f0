"""What a run would do, found out without doing any of it: the content of `jobs/plan.py`'s table and JSON."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from jobs.cost.estimate import BucketCost, Estimate, costs_of, total
from jobs.cost.price import Rate, models_of, plan_flops
from jobs.cost.step_times import StepTimes
from jobs.dry_run.input_check import InputCheck
from jobs.limits import disk_space
from jobs.limits.disk_space import DiskSpace
from jobs.limits.failed_rows import FailureLimit, rejected_rows
from jobs.run import run_folder
from manifests.batch import Bucket
from manifests.commit import sealed_shards, staged_parts
from manifests.config import RunConfig
from manifests.errors import TooManyFailedError, UsageError
from manifests.planning.plan import Plan, share_of
from manifests.planning.sources import Sources
from manifests.planning.window_summary import Problem
from workers.checkpoints import locations


class BucketPlan(BaseModel):
    """One bucket of the plan.

    Attributes:
        copies: of the images, those that are made for another row too (`--dedupe`).
        rows_per_call: images of a full batch, which is one call of each model.
        padding: share of its device slots that no image fills: the last batch of a bucket in a window is rarely full.
        cost: None where nothing was measured.
    """

    model_config = ConfigDict(frozen=True)

    bucket: Bucket
    images: int
    copies: int
    batches: int
    rows_per_call: int
    padding: float
    cost: BucketCost | None


class PaperPrice(BaseModel):
    """What the whole plan takes by the FLOPs of its models, nothing measured, padding included.

    Attributes:
        prior_tflop, decoder_tflop: of each stage.
        chip: whose peak it is; None where the peak was given.
        peak_tflops, part: what a card could do per second, and what of it it is taken to do.
        card_hours: of all stages on such a card.
    """

    model_config = ConfigDict(frozen=True)

    prior_tflop: float
    decoder_tflop: float
    chip: str | None
    peak_tflops: float
    part: float
    card_hours: float


class Done(BaseModel):
    """What the output holds already, of this job's share of the plan.

    Attributes:
        shards: of the share; `sealed` of them are committed.
        staged: finished batches of shards that are not sealed.
        images_left: images to make, of the share; where batches are staged an estimate.
    """

    model_config = ConfigDict(frozen=True)

    shards: int
    sealed: int
    staged: int
    images_left: int


class DryRun(BaseModel):
    """What a run would do.

    Attributes:
        manifest, output: as given.
        sources: what was read, and what was not.
        seconds: that planning took, without `--check-inputs`.
        rows: of the manifest; `rejected` of them cannot be made, `problems` says why.
        rows_by_task, images_by_task: of those that can be made.
        copies: of the images, those that are made for another row too (`--dedupe`).
        padding: share of all device slots that no image fills.
        warnings: rows that can be made and may not look as meant.
        unusable: of the rows that can be made, those whose inputs cannot be used after all; None where nobody looked.
        disk: of the output, and what is left to write; None on object stores and where nothing is left.
        refused: why `generate` would not begin; None where it would.
        estimate: of the whole plan; None where nothing was measured.
        paper: of the whole plan, with nothing measured; None where the checkpoint's configs cannot be read.
    """

    model_config = ConfigDict(frozen=True)

    manifest: tuple[str, ...]
    output: str
    fingerprint: str
    sources: Sources
    seconds: float
    rows: int
    rejected: int
    rows_by_task: Mapping[str, int]
    images_by_task: Mapping[str, int]
    images: int
    copies: int
    batch_size: int
    batch_pixels: int | None
    batches: int
    shards: int
    padding: float
    buckets: tuple[BucketPlan, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    unusable: int | None
    done: Done
    disk: DiskSpace | None
    refused: str | None
    estimate: Estimate | None
    paper: PaperPrice | None = None

    @property
    def can_run(self) -> bool:
        """True where `generate` would make at least one image, has made all of them, or is asked for none."""
        return self.refused is None and (self.rows > self.failing or self.rows == 0)

    @property
    def failing(self) -> int:
        """Rows that will have no image, as far as is known."""
        return self.rejected + (self.unusable or 0)


def dry_run(
    config: RunConfig,
    planned: Plan,
    seconds: float,
    times: tuple[str, StepTimes] | None = None,
    inputs: InputCheck | None = None,
    rate: Rate | None = None,
) -> DryRun:
    """Put together what is known of a plan.

    Args:
        seconds: how long planning took.
        times: where step times come from, and the times.
        inputs: what was found out about them; None where nobody looked.
        rate: what the price on paper is made with.

    Raises:
        StorageError: the output cannot be listed.
    """
    done = _done(config, planned)
    disk = disk_space.look(config, planned, done.images_left, times)
    costs = {} if times is None else costs_of(planned.buckets, times[1], config.call_limit)
    rows = {bucket: config.call_limit.of(bucket.height, bucket.width) for bucket in planned.buckets}
    buckets = tuple(
        BucketPlan(
            bucket=bucket,
            images=count.samples,
            copies=count.samples - count.made,
            batches=count.batches,
            rows_per_call=rows[bucket],
            padding=1 - count.made / (count.batches * rows[bucket]),
            cost=costs.get(bucket),
        )
        for bucket, count in sorted(planned.buckets.items(), key=lambda item: -item[1].samples)
    )
    slots = sum(bucket.batches * bucket.rows_per_call for bucket in buckets)
    return DryRun(
        manifest=config.manifest,
        output=config.output,
        fingerprint=planned.fingerprint,
        sources=planned.sources,
        seconds=round(seconds, 3),
        rows=planned.requests,
        rejected=planned.rejected,
        rows_by_task=planned.requests_by_task,
        images_by_task=planned.samples_by_task,
        images=planned.samples,
        batch_size=config.batch_size,
        batch_pixels=config.batch_pixels,
        batches=planned.batches,
        shards=len(planned.shards),
        copies=sum(bucket.copies for bucket in buckets),
        padding=1 - (planned.samples - sum(bucket.copies for bucket in buckets)) / slots if slots else 0.0,
        buckets=buckets,
        problems=(*planned.problems, *(inputs.problems if inputs else ())),
        warnings=tuple(inputs.warnings) if inputs else (),
        unusable=inputs.unusable if inputs else None,
        done=done,
        disk=disk,
        refused=_refusal(config, planned, done, disk),
        estimate=total(costs, planned.buckets, times[1], times[0]) if times is not None and costs else None,
        paper=_paper(config, planned, rate or Rate()),
    )


def _paper(config: RunConfig, planned: Plan, rate: Rate) -> PaperPrice | None:
    models = models_of(config.checkpoint, "inpaint" in planned.tasks) if planned.buckets else None
    if models is None:
        return None
    work = plan_flops(planned.buckets, models, config.call_limit)
    return PaperPrice(
        prior_tflop=work.prior / 1e12,
        decoder_tflop=work.decoder / 1e12,
        chip=rate.chip,
        peak_tflops=rate.peak,
        part=rate.part,
        card_hours=rate.seconds(sum(work)) / 3600,
    )


def _done(config: RunConfig, planned: Plan) -> Done:
    numbers = share_of(planned, config.share)
    sealed = sealed_shards(config.output)
    staged = {shard: len(batches) for shard, batches in staged_parts(config.output).items() if shard not in sealed}
    left = 0
    for number in numbers:
        if number not in sealed:
            shard = planned.shards[number]
            missing = shard.batches - staged.get(number, 0)
            left += min(shard.samples, shard.rows_in(missing))
    return Done(
        shards=len(numbers),
        sealed=len(sealed.intersection(numbers)),
        staged=sum(staged.get(number, 0) for number in numbers),
        images_left=left,
    )


def _refusal(config: RunConfig, planned: Plan, done: Done, disk: DiskSpace | None) -> str | None:
    try:
        locations.check(config.checkpoint, planned.samples_by_task)
        run_folder.check(config, planned)
        disk_space.refuse(disk)
        if done.sealed < done.shards:
            numbers = share_of(planned, config.share)
            rows = sum(planned.shards[number].rows for number in numbers)
            FailureLimit(config, rows, rejected_rows(planned, numbers)).check()
    except (UsageError, TooManyFailedError) as error:
        return str(error)
    return None
