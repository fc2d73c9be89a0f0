"""Filling tails up to the batch shape."""

from __future__ import annotations

import numpy as np
import pytest

from manifests.config import RunConfig
from workers.device.device import DeviceKind
from workers.fault_tolerance.guard import PROBE_BUCKET
from workers.kandinsky.batch_shape import FullCalls, filled
from workers.kandinsky.graph_choice import EVERYTHING, NOTHING, GraphChoice

CONFIG = RunConfig(manifest=("m",), output="o", batch_size=3)


@pytest.mark.parametrize(
    ("kind", "graphs", "rows"),
    [
        ("ascend", NOTHING, (3, 3, 3)),
        ("ascend", EVERYTHING, (3, 3, 3)),
        ("cpu", NOTHING, (None, None, None)),
        ("cpu", EVERYTHING, (3, 3, None)),
        ("cpu", GraphChoice(prior=False, decoder=frozenset([PROBE_BUCKET.shape]), movq=False), (None, 3, None)),
        ("cpu", GraphChoice(prior=True, decoder=frozenset(["inpaint 64x64"]), movq=False), (3, None, None)),
    ],
)
def test_only_what_is_compiled_has_whole_calls(
    kind: DeviceKind, graphs: GraphChoice, rows: tuple[int | None, ...]
) -> None:
    calls = FullCalls.of(CONFIG, kind, graphs)
    assert (calls.prior(PROBE_BUCKET), calls.decoder(PROBE_BUCKET), calls.clip) == rows


def test_each_size_has_its_own_number_of_rows() -> None:
    config = CONFIG.model_copy(update={"batch_size": 16, "batch_pixels": 4 * 128 * 128})
    calls = FullCalls.of(config, "ascend", NOTHING)
    large = PROBE_BUCKET.model_copy(update={"height": 256})
    assert (calls.prior(PROBE_BUCKET), calls.decoder(large), calls.prior(large), calls.clip) == (4, 2, 2, 16)


def test_copies_of_the_last_item_fill_up() -> None:
    assert filled(["a", "b"], 4) == ["a", "b", "b", "b"]
    assert filled(["a", "b"], 2) == filled(("a", "b"), None) == ["a", "b"]


def test_a_generator_is_not_drawn_from_by_its_copies() -> None:
    generators = filled([np.random.default_rng(7)], 3)
    first, *copies = [generator.standard_normal(2).tolist() for generator in generators]
    assert copies == [first, first]
    assert generators[0].standard_normal() == np.random.default_rng(7).standard_normal(3)[2]
