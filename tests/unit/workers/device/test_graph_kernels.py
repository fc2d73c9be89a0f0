"""Each composed operator, compiled, against NumPy in float64; and eager code goes on with the NumPy kernels."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.models

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def mint() -> ModuleType:
    from workers.device import device

    device.take("cpu")
    from mindspore import mint

    return mint


def _values(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _compiled(function: Callable[..., Any], *arguments: Any) -> Array:
    """The result of a function of mint as a graph."""
    import mindspore as ms

    from workers.device import graph_kernels

    with graph_kernels.bound():
        result = ms.jit(function, fullgraph=True)(
            *(ms.Tensor(a) if isinstance(a, np.ndarray) else a for a in arguments)
        )
    array: Array = result.asnumpy()
    return array


def _erf(values: Array) -> Array:
    return np.vectorize(math.erf)(values)


def test_layer_norm_with_and_without_weight(mint: ModuleType) -> None:
    x, weight, bias = _values(3, 5, 16), _values(16, seed=1), _values(16, seed=2)
    wide = x.astype(np.float64)
    normed = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)

    def with_weight(x: Any, weight: Any, bias: Any) -> Any:
        return mint.nn.functional.layer_norm(x, (16,), weight, bias, 1e-5)

    def without(x: Any) -> Any:
        return mint.nn.functional.layer_norm(x, (16,))

    assert np.allclose(_compiled(with_weight, x, weight, bias), normed * weight + bias, atol=2e-5)
    assert np.allclose(_compiled(without, x), normed, atol=2e-5)


def test_gelu_is_exact(mint: ModuleType) -> None:
    x = np.linspace(-6, 6, 1001, dtype=np.float32)

    def gelu(x: Any) -> Any:
        return mint.nn.functional.gelu(x)

    assert np.allclose(_compiled(gelu, x), x * 0.5 * (1 + _erf(x / math.sqrt(2))), atol=1e-6)


def test_baddbmm_with_and_without_factors(mint: ModuleType) -> None:
    bias, a, b = _values(2, 3, 5), _values(2, 3, 4, seed=1), _values(2, 4, 5, seed=2)

    def plain(bias: Any, a: Any, b: Any) -> Any:
        return mint.baddbmm(bias, a, b)

    def scaled(bias: Any, a: Any, b: Any) -> Any:
        return mint.baddbmm(bias, a, b, beta=2, alpha=0.5)

    assert np.allclose(_compiled(plain, bias, a, b), bias + a @ b, atol=1e-5)
    assert np.allclose(_compiled(scaled, bias, a, b), 2 * bias + 0.5 * (a @ b), atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (3, 1, 1), (3, 2, 0)])
def test_convolution_adds_its_bias(mint: ModuleType, kernel: int, stride: int, padding: int) -> None:
    import mindspore as ms

    cell = mint.nn.Conv2d(4, 6, kernel, stride=stride, padding=padding)
    weight, bias = _values(6, 4, kernel, kernel, seed=1), _values(6, seed=2)
    cell.weight.set_data(ms.Tensor(weight))
    cell.bias.set_data(ms.Tensor(bias))
    x = _values(2, 4, 8, 10)
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(2, 3))[:, :, ::stride, ::stride]
    expected = np.einsum("bchwij,ocij->bohw", windows, weight) + bias[:, None, None]
    assert np.allclose(_compiled(cell.construct, x), expected, atol=1e-4)
    assert np.allclose(cell(ms.Tensor(x)).asnumpy(), expected, atol=1e-4), "eager"


def test_pooling_takes_the_mean_of_each_window(mint: ModuleType) -> None:
    def pool(x: Any) -> Any:
        return mint.nn.functional.avg_pool2d(x, 2)

    x = _values(1, 2, 4, 6)
    assert np.allclose(_compiled(pool, x), x.reshape(1, 2, 2, 2, 3, 2).mean((3, 5)), atol=1e-6)


def test_padding_counts_from_the_last_axis(mint: ModuleType) -> None:
    def pad(x: Any) -> Any:
        return mint.nn.functional.pad(x, (0, 1, 2, 0), value=0.0)

    x = _values(2, 3, 4)
    assert np.array_equal(_compiled(pad, x), np.pad(x, ((0, 0), (2, 0), (0, 1))))


def test_exp_is_exact_to_float32(mint: ModuleType) -> None:
    def exp(x: Any) -> Any:
        return mint.exp(x)

    x = np.linspace(-10, 10, 1001, dtype=np.float32)
    assert np.allclose(_compiled(exp, x), np.exp(x.astype(np.float64)), rtol=2e-7)


def test_names_are_bound_only_while_something_is_compiled(mint: ModuleType) -> None:
    from workers.device import cpu_kernels, graph_kernels

    def found() -> list[Any]:
        return [getattr(kernel.owner, kernel.attribute) for kernel in graph_kernels.KERNELS]

    assert {kernel.name for kernel in graph_kernels.KERNELS} <= set(cpu_kernels.install())
    before = found()
    with graph_kernels.bound():
        assert found() == [kernel.function for kernel in graph_kernels.KERNELS]
    assert found() == before
