"""The CPU stand-ins against NumPy, through the functions that the models call."""

from __future__ import annotations

import math
import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def mint() -> ModuleType:
    from workers import device

    device.take("cpu")
    from mindspore import mint

    return mint


def _tensor(array: Array) -> Any:
    import mindspore as ms

    return ms.Tensor(array)


def _values(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _reference_conv(x: Array, w: Array, bias: Array, stride: int, pad: int, groups: int) -> Array:
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    _, per_group, kh, kw = w.shape
    windows = np.lib.stride_tricks.sliding_window_view(x, (kh, kw), (2, 3))  # type: ignore[call-overload]
    windows = windows[:, :, ::stride, ::stride]
    parts = [
        np.einsum("nchwij,ocij->nohw", windows[:, g * per_group : (g + 1) * per_group], part)
        for g, part in enumerate(np.split(w, groups))
    ]
    return np.concatenate(parts, axis=1) + bias[None, :, None, None]


@pytest.mark.parametrize(("kernel", "pad"), [(1, 0), (3, 1), (3, 0)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_conv2d(mint: ModuleType, kernel: int, pad: int, stride: int, groups: int) -> None:
    x, w, bias = _values(2, 4, 7, 9), _values(6, 4 // groups, kernel, kernel, seed=1), _values(6, seed=2)
    layer = mint.nn.Conv2d(4, 6, kernel, stride=stride, padding=pad, groups=groups)
    layer.weight.set_data(_tensor(w))
    layer.bias.set_data(_tensor(bias))
    result = layer(_tensor(x))
    expected = _reference_conv(x, w, bias, stride, pad, groups)
    assert np.allclose(result.asnumpy(), expected, atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 8, 5, 3), (1, 32, 1, 1), (3, 4, 6)])
def test_group_norm(mint: ModuleType, shape: tuple[int, ...]) -> None:
    x, weight, bias = _values(*shape) * 3 + 1, _values(shape[1], seed=1), _values(shape[1], seed=2)
    result = mint.nn.functional.group_norm(_tensor(x), 4, _tensor(weight), _tensor(bias), 1e-5).asnumpy()
    grouped = x.reshape(shape[0], 4, -1).astype(np.float64)
    normed = (grouped - grouped.mean(-1, keepdims=True)) / np.sqrt(grouped.var(-1, keepdims=True) + 1e-5)
    broadcast = (1, shape[1]) + (1,) * (len(shape) - 2)
    expected = normed.reshape(shape) * weight.reshape(broadcast) + bias.reshape(broadcast)
    assert np.allclose(result, expected, atol=1e-5)


def test_layer_norm(mint: ModuleType) -> None:
    x, weight, bias = _values(2, 5, 12) * 3 + 1, _values(12, seed=1), _values(12, seed=2)
    result = mint.nn.functional.layer_norm(_tensor(x), (12,), _tensor(weight), _tensor(bias), 1e-5).asnumpy()
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5) * weight + bias
    assert np.allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 12), (2, 3, 12), (12,)])
def test_linear(mint: ModuleType, shape: tuple[int, ...], bias: bool) -> None:
    x, weight, offset = _values(*shape), _values(7, 12, seed=1), _values(7, seed=2)
    result = mint.nn.functional.linear(_tensor(x), _tensor(weight), _tensor(offset) if bias else None).asnumpy()
    assert np.allclose(result, x @ weight.T + (offset if bias else 0), atol=1e-5)
    assert result.shape == (*shape[:-1], 7)


def test_activations(mint: ModuleType) -> None:
    x = np.concatenate([_values(50) * 5, np.float32([-100, 100, 0])])
    wide = x.astype(np.float64)
    gelu = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in wide])
    tanh = 0.5 * wide * (1 + np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)))
    assert np.allclose(mint.nn.functional.gelu(_tensor(x)).asnumpy(), gelu, atol=1e-5)
    assert np.allclose(mint.nn.functional.gelu(_tensor(x), approximate="tanh").asnumpy(), tanh, atol=1e-5)
    assert np.allclose(mint.nn.functional.silu(_tensor(x)).asnumpy(), wide / (1 + np.exp(-wide)), atol=1e-6)


def test_exp_is_exact_to_float32(mint: ModuleType) -> None:
    x = np.linspace(-10, 10, 1001, dtype=np.float32)
    assert np.allclose(mint.exp(_tensor(x)).asnumpy(), np.exp(x.astype(np.float64)), rtol=2e-7)


@pytest.mark.parametrize("beta", [0, 1, 0.5])
def test_baddbmm_does_not_read_its_bias_when_beta_is_zero(mint: ModuleType, beta: float) -> None:
    a, b = _values(2, 3, 4), _values(2, 4, 5, seed=1)
    bias = np.full((2, 3, 5), np.nan if beta == 0 else 2.0, np.float32)
    result = mint.baddbmm(_tensor(bias), _tensor(a), _tensor(b), beta=beta, alpha=0.25).asnumpy()
    assert np.allclose(result, 0.25 * a @ b + (beta * 2.0 if beta else 0), atol=1e-5)


@pytest.mark.parametrize("padding", [(1, 0), (0, 1, 2, 0), (-1, 1), (0, 0, -1, -1)])
def test_constant_pad_pads_and_crops(mint: ModuleType, padding: tuple[int, ...]) -> None:
    x = _values(2, 3, 4, 5)
    result = mint.nn.functional.pad(_tensor(x), padding, mode="constant", value=2.0).asnumpy()
    pairs = [(0, 0)] * (4 - len(padding) // 2) + [(padding[i], padding[i + 1]) for i in range(0, len(padding), 2)][::-1]
    cropped = x[tuple(slice(max(-b, 0), n - max(-a, 0)) for (b, a), n in zip(pairs, x.shape, strict=True))]
    expected = np.pad(cropped, [(max(b, 0), max(a, 0)) for b, a in pairs], constant_values=2.0)
    assert (result == expected).all()


def test_shapes_and_indices(mint: ModuleType) -> None:
    x = _values(3, 4)
    table, ids = _values(6, 3), np.array([[5, 0, 1], [2, 2, 4]])
    assert (mint.nn.functional.embedding(_tensor(ids), _tensor(table)).asnumpy() == table[ids]).all()
    assert (_tensor(x).repeat_interleave(2, dim=0).asnumpy() == x.repeat(2, 0)).all()
    assert (mint.stack([_tensor(x), _tensor(x)], dim=1).asnumpy() == np.stack([x, x], 1)).all()
    assert np.allclose(mint.cumsum(_tensor(x), dim=1).asnumpy(), x.cumsum(1), atol=1e-6)
    counted = mint.cumsum(_tensor(np.ones((2, 3), np.int32)), dim=1)
    assert counted.asnumpy().tolist() == [[1, 2, 3]] * 2
    pooled = mint.nn.functional.avg_pool2d(_tensor(_values(1, 2, 4, 6)), 2).asnumpy()
    assert np.allclose(pooled, _values(1, 2, 4, 6).reshape(1, 2, 2, 2, 3, 2).mean((3, 5)), atol=1e-6)


def test_makers_of_tensors(mint: ModuleType) -> None:
    import mindspore as ms

    assert mint.arange(start=0, end=3, dtype=ms.float32).asnumpy().tolist() == [0.0, 1.0, 2.0]
    assert str(mint.arange(0, 3).dtype) == "Int64"
    assert np.allclose(mint.linspace(0.0001, 0.02, 1000).asnumpy(), np.linspace(0.0001, 0.02, 1000), rtol=1e-6)
    assert mint.full((2, 2), 3.0).asnumpy().tolist() == [[3.0, 3.0], [3.0, 3.0]]
    assert mint.zeros((2,)).asnumpy().tolist() == [0.0, 0.0]
    x = _tensor(_values(2, 2))
    assert x.fill_(1.5).asnumpy().tolist() == x.asnumpy().tolist() == [[1.5, 1.5], [1.5, 1.5]]


def test_dropout_for_training_is_refused(mint: ModuleType) -> None:
    x = _tensor(_values(4))
    assert (mint.nn.functional.dropout(x, 0.5, training=False).asnumpy() == x.asnumpy()).all()
    with pytest.raises(NotImplementedError, match="inference"):
        mint.nn.functional.dropout(x, 0.5, training=True)


def test_only_kernels_that_the_backend_lacks_are_replaced_and_none_on_another_device() -> None:
    program = """
from workers import cpu_kernels
import mindspore as ms
names = ("Arange", "Conv2DExt")
kernels = {kernel.name: kernel for kernel in cpu_kernels._kernels()}
assert all(kernels[name].is_needed() for name in names), "MindSpore has them now: drop them from the table"
original = ms.get_context
ms.get_context = lambda key: "Ascend" if key == "device_target" else original(key)
assert cpu_kernels.install() == ()
ms.get_context = original
cpu_kernels.install.cache_clear()
assert set(names) <= set(cpu_kernels.install())
assert not any(kernels[name].is_needed() for name in names), "a kernel that works would be replaced"
print("done")
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.stdout.strip().endswith("done"), result.stderr[-2000:]
