"""The published size of Kandinsky 2.1 can be built here, by shapes alone."""

from __future__ import annotations

import math
import resource
from types import ModuleType

import pytest

from workers.kandinsky.architecture import FULL, FULL_INPAINT_UNET

pytestmark = pytest.mark.models


def _millions(kandinsky: ModuleType, class_name: str, config: dict[str, object]) -> float:
    shapes = kandinsky.parameter_shapes(class_name, config)
    return sum(math.prod(shape) for shape in shapes.values()) / 1e6


@pytest.mark.parametrize(
    ("class_name", "millions"), [("UNet2DConditionModel", 1229), ("PriorTransformer", 1022), ("VQModel", 68)]
)
def test_a_component_of_the_published_config_has_the_published_number_of_parameters(
    kandinsky: ModuleType, class_name: str, millions: int
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert round(_millions(kandinsky, class_name, FULL[class_name])) == millions
    grown_megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_megabytes < 500, "the parameters were allocated"


def test_the_inpainting_unet_only_has_a_wider_entrance(kandinsky: ModuleType) -> None:
    plain = kandinsky.parameter_shapes("UNet2DConditionModel", FULL["UNet2DConditionModel"])
    inpaint = kandinsky.parameter_shapes("UNet2DConditionModel", FULL_INPAINT_UNET)
    differ = {name: shape for name, shape in inpaint.items() if plain[name] != shape}
    assert differ == {"conv_in.weight": (384, 9, 3, 3)}
