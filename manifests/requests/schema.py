"""The request schema: what the columns of a manifest are, their ranges, and what a null falls back to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from manifests.records import CONDITION_TYPE, IMAGE_TYPE

#: The tasks, in the order that shards of one window are planned in.
TASKS: tuple[str, ...] = ("text2img", "img2img", "inpaint", "interpolate")

MASK_POLARITIES: tuple[str, ...] = ("white", "black")


def _field(name: str, kind: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, kind, metadata={"description": description})


#: Columns that a manifest may have. Every other column travels to the output index unchanged.
REQUEST_FIELDS: tuple[pa.Field, ...] = (
    _field("id", pa.string(), "unique name of the request; null or absent: made from the row's content"),
    _field("task", pa.string(), "text2img, img2img, inpaint or interpolate"),
    _field("prompt", pa.string(), "required except for interpolate; may be empty"),
    _field("negative_prompt", pa.string(), "null: the zero-image embedding; '' is sampled like any prompt"),
    _field("image", IMAGE_TYPE, "img2img, inpaint: a location, or struct<bytes, path>"),
    _field("mask", IMAGE_TYPE, "inpaint: a location, or struct<bytes, path>; white is repainted"),
    _field("mask_polarity", pa.string(), "inpaint: the colour that is repainted, 'white' (default) or 'black'"),
    _field("conditions", pa.list_(CONDITION_TYPE), "interpolate: texts and images with their weights"),
    _field("seed", pa.uint64(), "fixes the noise; null: derived from the id and the job's seed"),
    _field("num_images", pa.int32(), "images to make of this request, 1 to 1024 (default 1)"),
    _field("height", pa.int32(), "pixels, a multiple of 64 from 64 to 4096"),
    _field("width", pa.int32(), "pixels, a multiple of 64 from 64 to 4096"),
    _field("steps", pa.int32(), "decoder steps, 1 to 1000"),
    _field("guidance_scale", pa.float64(), "decoder guidance, 0 to 100"),
    _field("prior_steps", pa.int32(), "prior steps, 2 to 1000"),
    _field("prior_guidance_scale", pa.float64(), "prior guidance, 0 to 100"),
    _field("strength", pa.float64(), "img2img: how much of the image is remade, above 0, at most 1"),
)

REQUEST_NAMES: tuple[str, ...] = tuple(field.name for field in REQUEST_FIELDS)

#: Columns whose images may lie inline in the manifest.
IMAGE_COLUMNS: tuple[str, ...] = ("image", "mask")

#: Settings that a null takes from the job's config, and then from the task.
SETTINGS: tuple[str, ...] = (
    "height",
    "width",
    "steps",
    "guidance_scale",
    "prior_steps",
    "prior_guidance_scale",
    "strength",
)

_COMMON: dict[str, float] = {
    "height": 512,
    "width": 512,
    "steps": 100,
    "guidance_scale": 4.0,
    "prior_steps": 25,
    "prior_guidance_scale": 4.0,
    "strength": math.nan,
}

#: What a setting is where neither the row nor the config says; NaN where the task has no such setting.
TASK_DEFAULTS: dict[str, dict[str, float]] = {
    "text2img": _COMMON,
    "img2img": {**_COMMON, "guidance_scale": 7.0, "strength": 0.3},
    "inpaint": _COMMON,
    "interpolate": _COMMON,
}


@dataclass(frozen=True)
class Rule:
    """The values a numeric column may have.

    Attributes:
        kind: Arrow type that every value must fit in before its range is looked at.
        low, high: the range, both ends included; `above_low` excludes the lower one.
        step: whole numbers must be a multiple of it.
        what: the rule in words, "is not {what}".
        advice: what to do, "use {advice}".
    """

    kind: pa.DataType
    low: float
    high: float
    what: str
    advice: str
    step: int = 1
    above_low: bool = False

    def holds(self, value: float) -> bool:
        """True where one value keeps the rule."""
        if not math.isfinite(value) or value > self.high or value < self.low:
            return False
        if self.above_low and value == self.low:
            return False
        return not pa.types.is_integer(self.kind) or value % self.step == 0


_SIDE = Rule(
    pa.int64(),
    64,
    4096,
    "a multiple of 64 from 64 to 4096",
    "512, or leave it null for the job's value",
    step=64,
)
_GUIDANCE = Rule(pa.float64(), 0, 100, "a number from 0 to 100", "4.0, or leave it null for the job's value")

#: The rule of each numeric column.
RULES: dict[str, Rule] = {
    "seed": Rule(pa.uint64(), 0, 2**64 - 1, "a whole number from 0 to 2**64 - 1", "such a number, or leave it null"),
    "num_images": Rule(pa.int64(), 1, 1024, "a whole number from 1 to 1024", "1, or several rows"),
    "height": _SIDE,
    "width": _SIDE,
    "steps": Rule(pa.int64(), 1, 1000, "a whole number from 1 to 1000", "100, or leave it null for the job's value"),
    "guidance_scale": _GUIDANCE,
    # The prior's scheduler divides by the number of its steps less one.
    "prior_steps": Rule(
        pa.int64(), 2, 1000, "a whole number from 2 to 1000", "25, or leave it null for the job's value"
    ),
    "prior_guidance_scale": _GUIDANCE,
    "strength": Rule(
        pa.float64(),
        0,
        1,
        "a number above 0, at most 1",
        "0.3, or leave it null for the job's value",
        above_low=True,
    ),
}


def complaint(column: str, shown: str, value: Any) -> str:
    """The message for a value that breaks its column's rule.

    Args:
        column: one of `RULES`.
        shown: the value as the manifest has it, shortened.
        value: the same as a number; None where it is not one.
    """
    rule = RULES[column]
    if rule.step > 1 and value is not None and math.isfinite(value) and rule.low <= value <= rule.high:
        below = int(value) // rule.step * rule.step
        return f"{column}: {shown} is not a multiple of {rule.step}; use {below} or {below + rule.step}"
    return f"{column}: {shown} is not {rule.what}; use {rule.advice}"


def strength_complaint(steps: int, strength: float) -> str | None:
    """Why this pair leaves img2img nothing to do; None where it does not.

    img2img runs int(steps * strength) steps and starts from noise step int(1000 * strength) - 2.
    """
    if int(steps * strength) < 1:
        enough = f"{1 / steps:g} or more, or more steps"
        return f"strength: {strength:g} of {steps} steps leaves no step to run; use {enough}"
    if int(1000 * strength) < 2:
        return f"strength: {strength:g} is below the first noise step; use 0.002 or more"
    return None
