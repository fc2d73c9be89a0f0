"""Filling tails up to the batch shape."""

from __future__ import annotations

import numpy as np
import pytest

from manifests.config import RunConfig
from workers.device.device import DeviceKind
from workers.fault_tolerance.guard import PROBE_BUCKET
from workers.kandinsky.batch_shape import filled, full_calls, rows_of


@pytest.mark.parametrize(
    ("kind", "graph", "rows"), [("ascend", False, 3), ("ascend", True, 3), ("cpu", False, None), ("cpu", True, 3)]
)
def test_only_what_compiles_asks_for_whole_batches(kind: DeviceKind, graph: bool, rows: int | None) -> None:
    calls = full_calls(RunConfig(manifest=("m",), output="o", batch_size=3, graph=graph), kind)
    assert rows_of(calls, PROBE_BUCKET) == rows


def test_each_size_has_its_own_number_of_rows() -> None:
    config = RunConfig(manifest=("m",), output="o", batch_size=16, batch_pixels=4 * 128 * 128)
    calls = full_calls(config, "ascend")
    large = PROBE_BUCKET.model_copy(update={"height": 256})
    assert (rows_of(calls, PROBE_BUCKET), rows_of(calls, large)) == (4, 2)


def test_copies_of_the_last_item_fill_up() -> None:
    assert filled(["a", "b"], 4) == ["a", "b", "b", "b"]
    assert filled(["a", "b"], 2) == filled(("a", "b"), None) == ["a", "b"]


def test_a_generator_is_not_drawn_from_by_its_copies() -> None:
    generators = filled([np.random.default_rng(7)], 3)
    first, *copies = [generator.standard_normal(2).tolist() for generator in generators]
    assert copies == [first, first]
    assert generators[0].standard_normal() == np.random.default_rng(7).standard_normal(3)[2]
