"""The price on paper: FLOPs of an image by its bucket and the checkpoint's configs, and what that takes of a card.

Nothing needs to have run. What a card reaches of its peak is stated with every price, because nobody has measured it
for these models on Ascend yet; where a run has measured, its times are better (jobs/cost/estimate.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from jobs.cost import flops
from jobs.cost.flops import Config
from manifests.batch import Bucket
from manifests.call_limit import CallLimit
from manifests.errors import StorageError, UsageError
from manifests.planning.window_summary import BucketTally
from workers.checkpoints.locations import DECODER, INPAINT, PRIOR, component_config

#: Conditions that an interpolation is priced with; how many each row has, its bucket does not say.
CONDITIONS = 2


class Chip(NamedTuple):
    """What a chip could do at most: float16, matrix products alone, in TFLOP/s."""

    peak: float
    source: str


#: By the name that its runtime gives. A chip that is not here has no peak: nothing is guessed.
CHIPS: Mapping[str, Chip] = {
    "Ascend910B2": Chip(353.9, "24 cube cores x 8,192 FLOP x 1.8 GHz; 376 counts the vector units too"),
    "Ascend910B3": Chip(294.9, "20 cube cores x 8,192 FLOP x 1.8 GHz; 313 counts the vector units too"),
}

#: Where nobody names a chip, and what it is taken to reach: mindone's published SDXL runs come to 24 to 26 % of it.
USUAL_CHIP, USUAL_PART = "Ascend910B2", 0.26


@dataclass(frozen=True)
class Rate:
    """How fast a card is taken to be.

    Attributes:
        chip: whose peak it is; None where somebody has given the peak.
        peak: TFLOP/s at most; part: what of it is reached.
    """

    chip: str | None = USUAL_CHIP
    peak: float = CHIPS[USUAL_CHIP].peak
    part: float = USUAL_PART

    @classmethod
    def of(cls, chip: str | None, peak: float | None, part: float | None) -> Rate:
        """What a person says of it, and the usual where nothing is said.

        Raises:
            UsageError: the chip's peak is not known, or a number is of no use.
        """
        if peak is not None and chip is not None:
            raise UsageError("options --chip and --peak: both say what a card could do; give one")
        part = USUAL_PART if part is None else part
        if not 0 < part <= 1 or (peak is not None and peak <= 0):
            raise UsageError("option --utilization: is more than 0 and at most 1; option --peak: is more than 0")
        if peak is not None:
            return cls(None, peak, part)
        chip = chip or USUAL_CHIP
        if chip not in CHIPS:
            raise UsageError(
                f"option --chip: the peak of {chip!r} is not known here; known: {', '.join(CHIPS)}, or --peak"
            )
        return cls(chip, CHIPS[chip].peak, part)

    def seconds(self, flops: float) -> float:
        """How long one card takes."""
        return flops / (self.peak * self.part * 1e12)


class Flops(NamedTuple):
    """Of one image, by stage."""

    prior: int
    decoder: int


@dataclass(frozen=True)
class Models:
    """The configs that a price is made of."""

    prior: Config
    prior_text: Config
    text: Config
    unet: Config
    inpaint_unet: Config
    movq: Config

    def image(self, bucket: Bucket) -> Flops:
        """What one image of a bucket takes."""
        return Flops(self._prior(bucket), self._decoder(bucket))

    def _prior(self, bucket: Bucket) -> int:
        # Guidance doubles the rows, and a negative text is one more run of all of it.
        rows = 2 if bucket.prior_guidance_scale > 1 else 1
        texts = CONDITIONS if bucket.task == "interpolate" else 1
        runs = texts + bucket.has_negative
        return runs * rows * (bucket.prior_steps * flops.prior_step(self.prior) + flops.clip_text(self.prior_text))

    def _decoder(self, bucket: Bucket) -> int:
        scale = 2 ** (len(self.movq["block_out_channels"]) - 1)
        size = bucket.height // scale, bucket.width // scale
        rows = 2 if bucket.guidance_scale > 1 else 1
        steps = bucket.steps if bucket.strength is None else int(bucket.steps * bucket.strength)
        unet = self.inpaint_unet if bucket.task == "inpaint" else self.unet
        work = rows * (steps * flops.unet_step(unet, *size) + flops.multilingual_text(self.text))
        if bucket.task in ("img2img", "inpaint"):
            work += flops.movq_encode(self.movq, *size)
        return work + flops.movq_decode(self.movq, *size)


#: Every part of the models has a part in it.
_ANY = Bucket(
    task="inpaint",
    height=512,
    width=512,
    steps=2,
    guidance_scale=4.0,
    prior_steps=2,
    prior_guidance_scale=4.0,
    strength=None,
    has_negative=True,
)


def models_of(checkpoint: str, inpaint: bool) -> Models | None:
    """The configs of a checkpoint; None where they cannot be read, or are not those of Kandinsky 2.1.

    Args:
        inpaint: the plan has such requests; only then a checkpoint must have that repository.
    """
    parts = {
        "prior": (PRIOR, "prior"),
        "prior_text": (PRIOR, "text_encoder"),
        "text": (DECODER, "text_encoder"),
        "unet": (DECODER, "unet"),
        "inpaint_unet": (INPAINT if inpaint else DECODER, "unet"),
        "movq": (DECODER, "movq"),
    }
    try:
        models = Models(**{name: component_config(checkpoint, *place) for name, place in parts.items()})
        models.image(_ANY)
    except (StorageError, LookupError, TypeError):
        return None
    return models


def plan_flops(planned: Mapping[Bucket, BucketTally], models: Models, limit: CallLimit | None = None) -> Flops:
    """What a plan takes.

    Args:
        limit: of calls that are filled up to it, as devices that compile have them; None counts images alone.
    """
    prior = decoder = 0
    for bucket, tally in planned.items():
        rows = tally.made if limit is None else tally.batches * limit.of(bucket.height, bucket.width)
        image = models.image(bucket)
        prior += rows * image.prior
        decoder += rows * image.decoder
    return Flops(prior, decoder)
