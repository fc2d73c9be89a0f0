"""Each CPU stand-in against NumPy in float64, on shapes, dtypes, strides and values that hypothesis picks."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.device import winograd

Array = np.ndarray[Any, Any]

#: The first call of an operator compiles it.
quick = settings(max_examples=40, deadline=None, derandomize=True)

SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(1, 9)
SHAPES = st.lists(SIDES, min_size=1, max_size=4).map(tuple)
DTYPES = st.sampled_from([np.float32, np.float16])


@pytest.fixture(scope="module")
def mint() -> ModuleType:
    from workers.device import device

    device.take("cpu")
    from mindspore import mint

    return mint


def _values(shape: tuple[int, ...], seed: int, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def _tensor(array: Array) -> Any:
    import mindspore as ms

    return ms.Tensor(np.array(array, order="C"))


def _strided(array: Array, order: list[int]) -> Any:
    """A tensor equal to `array` that is a transposed view of other memory."""
    return _tensor(array.transpose(order)).permute(*np.argsort(order).tolist())


def _assert_close(result: Any, expected: Array, dtype: Any = np.float32) -> None:
    found = result.asnumpy()
    assert found.shape == expected.shape
    assert found.dtype == dtype
    tolerance = 2e-5 if dtype == np.float32 else 1e-2
    assert np.allclose(found, expected, rtol=tolerance, atol=tolerance)


def _reference_conv(x: Array, w: Array, bias: Array, stride: int, pad: int, dilation: int, groups: int) -> Array:
    x, w = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pad, pad), (pad, pad))), w.astype(np.float64)
    _, per_group, kh, kw = w.shape
    reach = ((kh - 1) * dilation + 1, (kw - 1) * dilation + 1)
    windows = np.lib.stride_tricks.sliding_window_view(x, reach, (2, 3))  # type: ignore[call-overload]
    windows = windows[:, :, ::stride, ::stride, ::dilation, ::dilation]
    parts = [
        np.einsum("nchwij,ocij->nohw", windows[:, g * per_group : (g + 1) * per_group], part)
        for g, part in enumerate(np.split(w, groups))
    ]
    return np.concatenate(parts, axis=1) + bias[None, :, None, None]


@given(
    batch=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    side=st.tuples(st.integers(5, 11), st.integers(5, 11)),
    kernel=st.sampled_from([1, 3]),
    stride=st.sampled_from([1, 2]),
    pad=st.sampled_from([0, 1, 2]),
    dilation=st.sampled_from([1, 2]),
    groups=st.sampled_from([1, 2, 3]),
    strided=st.booleans(),
    seed=SEEDS,
)
@quick
def test_conv2d(mint: ModuleType, batch: int, channels: Any, side: Any, kernel: int, stride: int, pad: int,
                dilation: int, groups: int, strided: bool, seed: int) -> None:  # fmt: skip
    inner, out = channels
    x = _values((batch, inner * groups, *side), seed)
    w, bias = _values((out * groups, inner, kernel, kernel), seed + 1), _values((out * groups,), seed + 2)
    settings = {"stride": stride, "padding": pad, "dilation": dilation, "groups": groups}
    layer = mint.nn.Conv2d(inner * groups, out * groups, kernel, **settings)
    layer.weight.set_data(_tensor(w))
    layer.bias.set_data(_tensor(bias))
    result = layer(_strided(x, [0, 2, 3, 1]) if strided else _tensor(x))
    _assert_close(result, _reference_conv(x, w, bias, stride, pad, dilation, groups))


@given(
    batch=st.integers(1, 7),
    channels=st.tuples(st.integers(16, 40), st.integers(16, 40)),
    side=st.tuples(SIDES, SIDES),
    group_bytes=st.sampled_from([1, 60_000, 1 << 20]),
    biased=st.booleans(),
    strided=st.booleans(),
    seed=SEEDS,
)
@quick
def test_convolutions_of_more_channels(mint: ModuleType, batch: int, channels: Any, side: Any, group_bytes: int,
                                       biased: bool, strided: bool, seed: int) -> None:  # fmt: skip
    inner, out = channels
    assert winograd.is_faster(inner, out, *side)
    x, w = _values((batch, inner, *side), seed), _values((out, inner, 3, 3), seed + 1) / np.float32(3 * inner**0.5)
    bias = _values((out,), seed + 2)
    layer = mint.nn.Conv2d(inner, out, 3, padding=1, bias=biased)
    layer.weight.set_data(_tensor(w))
    if biased:
        layer.bias.set_data(_tensor(bias))
    with patch.object(winograd, "_GROUP_BYTES", group_bytes):
        result = layer(_strided(x, [0, 2, 3, 1]) if strided else _tensor(x))
    _assert_close(result, _reference_conv(x, w, bias if biased else np.zeros(out), 1, 1, 1, 1))


def test_where_the_backends_own_convolution_is_faster_it_stays(
    monkeypatch: pytest.MonkeyPatch, mint: ModuleType
) -> None:
    monkeypatch.setattr(winograd, "conv3x3", lambda *given: pytest.fail("made in NumPy"))
    for inner, out, side in ((4, 64, 8), (64, 3, 8), (16, 16, 65), (512, 144, 2)):
        x, w = _values((1, inner, side, side), 1), _values((out, inner, 3, 3), 2) / np.float32(3 * inner**0.5)
        layer = mint.nn.Conv2d(inner, out, 3, padding=1, bias=False)
        layer.weight.set_data(_tensor(w))
        _assert_close(layer(_tensor(x)), _reference_conv(x, w, np.zeros(out), 1, 1, 1, 1))


@given(
    rows=st.integers(1, 3),
    per_group=st.integers(1, 4),
    groups=st.integers(1, 4),
    rest=st.lists(SIDES, max_size=2),
    dtype=DTYPES,
    seed=SEEDS,
)
@quick
def test_group_norm(
    mint: ModuleType, rows: int, per_group: int, groups: int, rest: list[int], dtype: Any, seed: int
) -> None:
    channels = per_group * groups
    x = (_values((rows, channels, *rest), seed) * 3 + 1).astype(dtype)
    weight, bias = _values((channels,), seed + 1, dtype), _values((channels,), seed + 2, dtype)
    result = mint.nn.functional.group_norm(_tensor(x), groups, _tensor(weight), _tensor(bias), 1e-5)
    grouped = x.reshape(rows, groups, -1).astype(np.float64)
    normed = (grouped - grouped.mean(-1, keepdims=True)) / np.sqrt(grouped.var(-1, keepdims=True) + 1e-5)
    across = (1, channels) + (1,) * len(rest)
    _assert_close(result, normed.reshape(x.shape) * weight.reshape(across) + bias.reshape(across), dtype)


@given(shape=SHAPES, seed=SEEDS)
@quick
def test_layer_norm(mint: ModuleType, shape: tuple[int, ...], seed: int) -> None:
    shape = (*shape, 12)
    x, weight, bias = _values(shape, seed) * 3 + 1, _values((12,), seed + 1), _values((12,), seed + 2)
    result = mint.nn.functional.layer_norm(_tensor(x), (12,), _tensor(weight), _tensor(bias), 1e-5)
    wide = x.astype(np.float64)
    normed = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
    _assert_close(result, normed * weight + bias)


@given(shape=SHAPES, out=SIDES, with_bias=st.booleans(), strided=st.booleans(), dtype=DTYPES, seed=SEEDS)
@quick
def test_linear(
    mint: ModuleType, shape: tuple[int, ...], out: int, with_bias: bool, strided: bool, dtype: Any, seed: int
) -> None:
    x, weight = _values(shape, seed, dtype), _values((out, shape[-1]), seed + 1, dtype)
    bias = _values((out,), seed + 2, dtype) if with_bias else np.zeros(out, dtype)
    given_x = _strided(x, list(range(x.ndim))[::-1]) if strided else _tensor(x)
    result = mint.nn.functional.linear(given_x, _tensor(weight), _tensor(bias) if with_bias else None)
    _assert_close(result, x.astype(np.float64) @ weight.T.astype(np.float64) + bias, dtype)


@given(
    sizes=st.tuples(SIDES, SIDES, SIDES, SIDES),
    beta=st.sampled_from([0, 1, 0.5]),
    alpha=st.sampled_from([1, 0.25]),
    seed=SEEDS,
)
@quick
def test_baddbmm_reads_its_bias_only_where_beta_is_not_zero(
    mint: ModuleType, sizes: tuple[int, ...], beta: float, alpha: float, seed: int
) -> None:
    batch, rows, inner, columns = sizes
    a, b = _values((batch, rows, inner), seed), _values((batch, inner, columns), seed + 1)
    bias = np.full((batch, rows, columns), np.nan if beta == 0 else 2.0, np.float32)
    result = mint.baddbmm(_tensor(bias), _tensor(a), _strided(b, [0, 2, 1]), beta=beta, alpha=alpha)
    _assert_close(result, alpha * (a.astype(np.float64) @ b) + (beta * 2.0 if beta else 0))


@given(shape=SHAPES, scale=st.sampled_from([0.1, 1, 10, 60]), dtype=DTYPES, seed=SEEDS)
@quick
def test_activations(mint: ModuleType, shape: tuple[int, ...], scale: float, dtype: Any, seed: int) -> None:
    x = (_values(shape, seed) * scale).astype(dtype)
    wide = x.astype(np.float64)
    with np.errstate(over="ignore"):
        sigmoid = 1 / (1 + np.exp(-wide))
    phi = 0.5 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
    tanh = 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)))
    functional = mint.nn.functional
    _assert_close(functional.silu(_tensor(x)), wide * sigmoid, dtype)
    _assert_close(functional.gelu(_tensor(x)), wide * phi, dtype)
    _assert_close(functional.gelu(_tensor(x), approximate="tanh"), wide * tanh, dtype)


def test_erf_is_right_to_a_few_units_of_float32s_last_digit() -> None:
    from workers.device.numpy_kernels import erf

    x = np.linspace(-6, 6, 100_001).astype(np.float32)
    assert np.abs(erf(x) - np.vectorize(math.erf)(x.astype(np.float64))).max() < 5e-7


@given(
    shape=st.tuples(SIDES, SIDES, SIDES),
    narrow=st.sets(st.integers(0, 2)),
    operator=st.sampled_from(["add", "sub", "mul", "truediv"]),
    strided=st.booleans(),
    dtype=DTYPES,
    seed=SEEDS,
)
@quick
def test_arithmetic_broadcasts_and_keeps_the_dtype(
    mint: ModuleType, shape: tuple[int, ...], narrow: set[int], operator: str, strided: bool, dtype: Any, seed: int
) -> None:
    import operator as operators

    apply = getattr(operators, operator)
    left = _values(shape, seed, dtype)
    right = _values(tuple(1 if i in narrow else n for i, n in enumerate(shape)), seed + 1, dtype)
    right += np.copysign(dtype(0.5), right)  # nothing is divided by almost zero
    tensor = _strided(left, [2, 0, 1]) if strided else _tensor(left)
    _assert_close(apply(tensor, _tensor(right)), apply(left, right), dtype)
    _assert_close(apply(tensor, 3), apply(left, dtype(3)), dtype)
    if operator != "truediv":
        _assert_close(apply(0.5, tensor), apply(dtype(0.5), left), dtype)


def test_arithmetic_that_is_not_of_floats_alone_stays_mindspores(mint: ModuleType) -> None:
    whole, real = _tensor(np.int64([1, 2])), _tensor(np.float32([0.5, 4]))
    assert str((whole + 1).dtype) == "Int64"
    assert (whole / 2).asnumpy().tolist() == [0.5, 1.0]
    assert (whole * real).asnumpy().tolist() == [0.5, 8.0]
    assert (real + _tensor(np.float32(1.0))).shape == (2,)
    assert (_tensor(np.float32(1.0)) * 2.0).shape == ()
    assert (4.0 in real, 3.0 in real, 2 in whole, None in real) == (True, False, True, False)


@given(shape=st.tuples(SIDES, SIDES, SIDES, SIDES), order=st.permutations(range(4)), dtype=DTYPES, seed=SEEDS)
@quick
def test_reshaping_a_transposed_or_sliced_view(
    mint: ModuleType, shape: tuple[int, ...], order: list[int], dtype: Any, seed: int
) -> None:
    x = _values(shape, seed, dtype)
    assert (_strided(x, order).reshape(-1).asnumpy() == x.reshape(-1)).all()
    assert (_tensor(x)[:, 1:, :, ::2].reshape(-1).asnumpy() == x[:, 1:, :, ::2].reshape(-1)).all()
    first = mint.chunk(_tensor(np.concatenate([x, x + 1], 1)), 2, 1)[1]
    assert (first.reshape(shape[0], -1).asnumpy() == (x + 1).reshape(shape[0], -1)).all()


@given(shape=st.tuples(SIDES, SIDES, SIDES, SIDES), factors=st.tuples(st.integers(1, 3), st.integers(1, 3)), seed=SEEDS)
@quick
def test_upsampling_to_the_nearest(
    mint: ModuleType, shape: tuple[int, ...], factors: tuple[int, int], seed: int
) -> None:
    x = _values(shape, seed)
    size = (shape[2] * factors[0], shape[3] * factors[1])
    expected = x.repeat(factors[0], 2).repeat(factors[1], 3)
    _assert_close(mint.nn.functional.interpolate(_tensor(x), size=size, mode="nearest"), expected)


@given(
    shape=st.tuples(*[st.integers(3, 6)] * 4),
    padding=st.lists(st.integers(-1, 3), min_size=1, max_size=4).map(lambda p: [*p, *p]),
    dtype=st.sampled_from([np.float32, np.float16, np.int32]),
    seed=SEEDS,
)
@quick
def test_constant_pad_pads_and_crops(
    mint: ModuleType, shape: tuple[int, ...], padding: list[int], dtype: Any, seed: int
) -> None:
    x = (_values(shape, seed) * 5).astype(dtype)
    result = mint.nn.functional.pad(_tensor(x), tuple(padding), mode="constant", value=2)
    pairs = [(0, 0)] * (4 - len(padding) // 2) + [(padding[i], padding[i + 1]) for i in range(0, len(padding), 2)][::-1]
    cropped = x[tuple(slice(max(-b, 0), n - max(-a, 0)) for (b, a), n in zip(pairs, x.shape, strict=True))]
    expected = np.pad(cropped, [(max(b, 0), max(a, 0)) for b, a in pairs], constant_values=2)
    _assert_close(result, expected, dtype)


@given(shape=SHAPES, repeats=st.integers(1, 4), data=st.data(), seed=SEEDS)
@quick
def test_gathering_and_joining(mint: ModuleType, shape: tuple[int, ...], repeats: int, data: Any, seed: int) -> None:
    x, axis = _values(shape, seed), data.draw(st.integers(0, len(shape) - 1))
    table = _values((7, 3), seed)
    ids = np.random.default_rng(seed).integers(0, 7, shape)
    assert (_tensor(x).repeat_interleave(repeats, dim=axis).asnumpy() == x.repeat(repeats, axis)).all()
    assert (mint.stack([_tensor(x), _tensor(-x)], dim=axis).asnumpy() == np.stack([x, -x], axis)).all()
    joined = mint.cat([_tensor(x), _strided(-x, list(range(len(shape)))[::-1])], dim=axis)
    assert (joined.asnumpy() == np.concatenate([x, -x], axis)).all()
    halves = [_tensor(x).bfloat16(), _tensor(-x).bfloat16()]
    assert (
        mint.cat(halves, dim=axis).float().asnumpy()
        == np.concatenate([half.float().asnumpy() for half in halves], axis)
    ).all()
    assert (mint.nn.functional.embedding(_tensor(ids), _tensor(table)).asnumpy() == table[ids]).all()
    assert np.allclose(mint.cumsum(_tensor(x), dim=axis).asnumpy(), x.cumsum(axis), atol=1e-5)
    assert (mint.cumsum(_tensor(ids.astype(np.int32)), dim=axis).asnumpy() == ids.cumsum(axis)).all()


@given(shape=SHAPES, scale=st.floats(0.01, 100), data=st.data(), seed=SEEDS)
@quick
def test_softmax(mint: ModuleType, shape: tuple[int, ...], scale: float, data: Any, seed: int) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = (_values(shape, seed) * scale).astype(np.float32)
    powers = np.exp(x.astype(np.float64) - x.max(axis, keepdims=True))
    _assert_close(mint.softmax(_tensor(x), dim=axis), powers / powers.sum(axis, keepdims=True))


@given(batch=st.integers(1, 4), sizes=st.tuples(SIDES, SIDES, SIDES), seed=SEEDS)
@quick
def test_products_of_a_batch(mint: ModuleType, batch: int, sizes: tuple[int, int, int], seed: int) -> None:
    rows, inner, columns = sizes
    a, b = _values((batch, rows, inner), seed), _values((batch, inner, columns), seed + 1)
    _assert_close(mint.bmm(_strided(a, [0, 2, 1]), _tensor(b)), a.astype(np.float64) @ b)
