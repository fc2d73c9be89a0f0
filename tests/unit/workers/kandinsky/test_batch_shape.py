"""Filling tails up to the batch shape."""

from __future__ import annotations

import numpy as np
import pytest

from manifests.config import RunConfig
from workers.device.device import DeviceKind
from workers.kandinsky.batch_shape import filled, rows_per_call


@pytest.mark.parametrize(
    ("kind", "graph", "rows"), [("ascend", False, 3), ("ascend", True, 3), ("cpu", False, None), ("cpu", True, 3)]
)
def test_only_what_compiles_asks_for_whole_batches(kind: DeviceKind, graph: bool, rows: int | None) -> None:
    assert rows_per_call(RunConfig(manifest=("m",), output="o", batch_size=3, graph=graph), kind) == rows


def test_copies_of_the_last_item_fill_up() -> None:
    assert filled(["a", "b"], 4) == ["a", "b", "b", "b"]
    assert filled(["a", "b"], 2) == filled(("a", "b"), None) == ["a", "b"]


def test_a_generator_is_not_drawn_from_by_its_copies() -> None:
    generators = filled([np.random.default_rng(7)], 3)
    first, *copies = [generator.standard_normal(2).tolist() for generator in generators]
    assert copies == [first, first]
    assert generators[0].standard_normal() == np.random.default_rng(7).standard_normal(3)[2]
