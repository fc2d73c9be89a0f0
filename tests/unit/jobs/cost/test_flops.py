"""FLOPs by a model's config, beside what PyTorch counted of the same models (tests/goldens/count_flops.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.cost import flops

COUNTED = json.loads((Path(__file__).resolve().parents[3] / "data" / "flops.json").read_text())["cases"]


def name(case: dict[str, Any]) -> str:
    size = "x".join(map(str, case["arguments"].values()))
    return f"{case['model']}-{case['parameters'] // 10**6}M-{size}"


@pytest.mark.parametrize("case", COUNTED, ids=name)
def test_it_comes_out_as_pytorch_counts(case: dict[str, Any]) -> None:
    found = getattr(flops, case["model"])(case["config"], **case["arguments"])
    assert found == pytest.approx(case["flops"], rel=0.01)


@pytest.mark.parametrize(("model", "millions"), [("unet_step", 1229), ("prior_step", 1022), ("movq_decode", 67.8)])
def test_what_was_counted_has_as_many_parameters_as_the_published_models(model: str, millions: float) -> None:
    sizes = {case["parameters"] / 1e6 for case in COUNTED if case["model"] == model}
    assert any(size == pytest.approx(millions, rel=0.005) for size in sizes), sizes


def test_no_model_was_left_uncounted() -> None:
    assert {case["model"] for case in COUNTED} == {
        "prior_step", "unet_step", "movq_decode", "movq_encode", "clip_text", "clip_image", "multilingual_text"
    }  # fmt: skip
