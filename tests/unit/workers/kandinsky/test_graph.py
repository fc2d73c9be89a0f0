"""A compiled model holds itself against its operators: what it saves is known, and what is wrong is not used."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.models


@pytest.fixture
def graph(kandinsky: ModuleType) -> ModuleType:
    from workers.kandinsky import graph

    return graph


def tensor(rows: int = 2) -> Any:
    import mindspore as ms

    return ms.tensor(np.random.default_rng(0).standard_normal((rows, 8), np.float32))


def layer(width: int = 8) -> Any:
    from mindspore import nn

    return nn.Dense(8, width)


def test_the_first_call_of_each_shape_is_compiled_and_measured_in_both_ways(graph: ModuleType) -> None:
    model, graphs = layer(), graph.Graphs()
    plain = model(tensor()).asnumpy()
    graphs.compile(model, "construct", "unet")
    for rows in (2, 2, 3):
        assert model(tensor(rows)).shape == (rows, 8)
    assert np.abs(model(tensor()).asnumpy() - plain).max() < 1e-6
    assert [one.shape for one in graphs.compilations] == [(2, 8), (3, 8)]
    for one in graphs.compilations:
        assert one.why is None
        assert one.difference < 1e-6
        assert one.seconds > one.graph_seconds > 0
        assert one.operator_seconds > 0


def test_a_shape_that_is_not_chosen_runs_as_operators(graph: ModuleType) -> None:
    model, graphs = layer(), graph.Graphs()
    graphs.compile(model, "construct", "unet")
    graphs.on = False
    model(tensor())
    assert graphs.compilations == []
    graphs.on = True
    model(tensor())
    assert len(graphs.compilations) == 1


def test_what_does_not_compile_goes_on_as_operators_and_says_why(graph: ModuleType) -> None:
    import mindspore as ms
    from mindspore import nn

    class Python(nn.Cell):  # type: ignore[misc, name-defined, unused-ignore]
        def construct(self, given: Any) -> Any:
            return ms.tensor(np.sort(given.asnumpy()))

    model, graphs = Python(), graph.Graphs()
    graphs.compile(model, "construct", "prior")
    for _ in range(2):
        assert model(tensor()).asnumpy().tolist() == np.sort(tensor().asnumpy()).tolist()
    (one,) = graphs.compilations
    assert one.why.startswith("it does not compile (")
    assert (one.graph_seconds, one.operator_seconds, one.difference) == (None, None, None)


@pytest.mark.parametrize(
    ("wrong", "words"), [(0.1, "its result differs by 0."), (float("nan"), "its result differs by nan")]
)
def test_a_graph_that_gives_other_numbers_is_not_used(
    graph: ModuleType, monkeypatch: pytest.MonkeyPatch, wrong: float, words: str
) -> None:
    model, graphs = layer(), graph.Graphs()
    plain = model(tensor()).asnumpy()
    monkeypatch.setattr(graph.ms, "jit", lambda call, **_: lambda *given, **named: call(*given, **named) + wrong)
    graphs.compile(model, "construct", "unet")
    assert np.array_equal(model(tensor()).asnumpy(), plain)
    (one,) = graphs.compilations
    assert one.why.startswith(words)


def test_the_compiler_is_asked_for_on_ascend_only(graph: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from manifests.config import RunConfig
    from workers.kandinsky.graph_choice import EVERYTHING

    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(graph.ms, "jit", lambda call, **given: asked.append(given) or call)
    for compiler, kind in (("O1", "cpu"), ("O0", "ascend"), ("O1", "ascend"), ("GE", "ascend")):
        config = RunConfig(manifest=("m",), output="o", graph_compiler=compiler)
        graph.Graphs.of(EVERYTHING, config, kind).compile(layer(), "construct", "unet")
    assert asked == [
        {"fullgraph": True},
        {"fullgraph": True},
        {"fullgraph": True, "jit_level": "O1"},
        {"fullgraph": True, "backend": "GE"},
    ]
