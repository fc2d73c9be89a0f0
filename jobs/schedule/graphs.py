"""What a run compiles (`--graph auto`): a shape whose batches save more as graphs than compiling it takes.

What a graph saves of a call, and what compiling takes, is measured by every actor that compiles something
(workers/kandinsky/graph.py) and kept in a run's times. Where nothing was measured, nothing is compiled: on CPUs the
operators have kernels that a graph has not, and an actor with one CPU makes more with them. The choice is made once
for an output, by its whole plan, and kept there: graphs have other last digits than operators, and an image's bytes
must not depend on which start, repair or `redo.py` has made it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.cost.step_times import GraphTimes, StepTimes
from jobs.engine.pools import Pools
from jobs.monitoring.pace import duration
from manifests import storage
from manifests.batch import Bucket
from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.planning.window_summary import BucketTally
from workers.device.device import DeviceKind
from workers.kandinsky.graph_choice import EVERYTHING, NOTHING, GraphChoice

#: A graph must save so many times what compiling it takes: both vary from one machine, and hour, to the next.
MARGIN = 2.0

#: Parts of the models that a choice is made for, as a compilation names them.
PRIOR, UNET, MOVQ = "prior", "unet", "movq decode"

#: Under the output, by the kind of device.
_NAME = "_run/graphs-{}.json"


@dataclass(frozen=True)
class GraphPlan:
    """What is compiled, and why, in words."""

    choice: GraphChoice
    reason: str

    @property
    def in_words(self) -> str:
        """One line for the beginning of a run."""
        parts = ["the prior"] if self.choice.prior else []
        parts += ["the decoder"] if self.choice.decoder is None else sorted(self.choice.decoder)
        return f"graphs: {', '.join(parts) or 'none'} ({self.reason})"


@dataclass(frozen=True)
class _Gain:
    """What graphs of one shape would save each actor in seconds, and cost it."""

    calls: float
    saves: float
    costs: float

    @property
    def net(self) -> float:
        return self.saves - MARGIN * self.costs


def plan_graphs(
    config: RunConfig,
    planned: Mapping[Bucket, BucketTally],
    kind: DeviceKind,
    pools: Pools,
    known: tuple[str, StepTimes] | None,
) -> GraphPlan:
    """Choose, or do as the first start of the output has chosen.

    Args:
        planned: the whole plan.
        known: step times of an earlier run, and where they stand.

    Raises:
        UsageError: the output was begun with graphs, and now is to go on without.
    """
    before = kept(config.output, kind)
    if config.graph == "off" and before is not None and before.choice.any:
        raise UsageError(
            f"option --graph: {config.output} was begun with graphs, which have other last digits ({before.in_words}); "
            "leave the option out, or use another --output"
        )
    if config.graph != "auto":
        return GraphPlan(EVERYTHING if config.graph == "on" else NOTHING, f"--graph {config.graph}")
    if before is not None:
        return before
    if not planned or known is None or known[1].device != kind or all(times.part != UNET for times in known[1].graphs):
        words = f"nobody has measured what graphs save on {kind}: a run with --graph on does, and --times-of takes it"
        found = GraphPlan(NOTHING, words)
    else:
        found = _weigh(config, planned, pools, known[0], known[1].graphs)
    # The prior alone makes no image yet, and its pools say nothing of the decoder's.
    return found if config.stage == "prior" else _keep(config.output, kind, found)


def _weigh(
    config: RunConfig, planned: Mapping[Bucket, BucketTally], pools: Pools, source: str, figures: Sequence[GraphTimes]
) -> GraphPlan:
    decoders, priors = (max(1, pool.most) * config.share[1] for pool in (pools.decoder, pools.prior))
    steps: Counter[str] = Counter()
    batches: Counter[str] = Counter()
    latents: dict[str, float] = {}
    prior_steps = 0
    for bucket, tally in planned.items():
        steps[bucket.shape] += tally.batches * _unet_calls(bucket)
        batches[bucket.shape] += tally.batches
        latents[bucket.shape] = config.call_limit.of(bucket.height, bucket.width) * bucket.height * bucket.width / 64
        prior_steps += tally.batches * bucket.prior_steps * (1 + bucket.has_negative)
    # Guidance doubles the rows of the UNet's calls, and those of all measured ones.
    unet = {shape: _gain(figures, UNET, 2 * latents[shape], count / decoders) for shape, count in steps.items()}
    shapes = frozenset(shape for shape, found in unet.items() if found.net >= 0)
    movq = sum(_gain(figures, MOVQ, latents[shape], batches[shape] / decoders).net for shape in shapes)
    prior = _gain(figures, PRIOR, 1.0, prior_steps / priors)
    shape = max(unet, key=lambda one: unet[one].net)
    best = unet[shape]
    return GraphPlan(
        GraphChoice(prior=prior.net >= 0, decoder=shapes, movq=movq > 0),
        f"{best.calls:,.0f} steps of {shape} an actor save {duration(best.saves)}, and compiling takes "
        f"{duration(best.costs)}, by {source}",
    )


def _unet_calls(bucket: Bucket) -> int:
    """Of one batch."""
    return bucket.steps if bucket.strength is None else int(bucket.steps * bucket.strength)


def _gain(figures: Sequence[GraphTimes], part: str, pixels: float, calls: float) -> _Gain:
    """By the shape whose latents have about as many pixels, rows and all."""

    def distance(times: GraphTimes) -> float:
        ratio = times.shape[0] * times.shape[-2] * times.shape[-1] / pixels if len(times.shape) == 4 else 1.0
        return max(ratio, 1 / ratio)

    of_part = [times for times in figures if times.part == part]
    if not of_part:
        return _Gain(calls, 0.0, float("inf"))
    like = min(of_part, key=distance)
    return _Gain(calls, calls * like.saved, like.compiling)


def kept(output: str, kind: DeviceKind) -> GraphPlan | None:
    """The choice of the first start of an output on such a device; None where there was none."""
    try:
        known = json.loads(storage.read_bytes(storage.join(output, _NAME.format(kind))))
    except FileNotFoundError:
        return None
    return GraphPlan(GraphChoice.model_validate(known["choice"]), known["reason"])


def _keep(output: str, kind: DeviceKind, found: GraphPlan) -> GraphPlan:
    """Write it down; where another job of the same output was first, that one's counts."""
    record = {"choice": found.choice.model_dump(mode="json"), "reason": found.reason}
    data = json.dumps(record, indent=2).encode() + b"\n"
    if storage.create(storage.join(output, _NAME.format(kind)), data):
        return found
    return kept(output, kind) or found
