"""The CPU kernels that `workers.device.cpu_kernels` puts in place, in NumPy or in operators that have a kernel.

Each takes what the original takes; where that is a primitive's `__call__`, the primitive comes first, as `_self`, and
none of them needs it. NumPy shares memory with MindSpore's CPU tensors in both directions. Tensors that are views with
strides (transposed, sliced) are read where they lie: MindSpore's own copy of such a view takes some thirty times as
long as NumPy's.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import ops

from workers.device import winograd

Array = np.ndarray[Any, Any]

#: Element-wise work on more than this goes block by block, so that every pass but the first finds it in the cache.
_BLOCK = 32_768


def _tensor(array: Array) -> ms.Tensor:
    """The array as a tensor that shares its memory."""
    # NumPy makes scalars of what had no axes, and np.ascontiguousarray makes rows of scalars.
    array = np.asarray(array)
    return ms.Tensor.from_numpy(array if array.flags.c_contiguous else np.ascontiguousarray(array))


def _array(tensor: ms.Tensor) -> Array:
    """The tensor's values in its own memory, to be read while the tensor lives and never to be handed on.

    By the address, since `Tensor.asnumpy` copies what has strides and describes all else in a buffer protocol that
    NumPy parses in Python, which takes longer than many an operator.
    """
    shape, dtype = tensor.shape, tensor.dtype
    if 0 in shape or dtype == ms.bfloat16:
        array: Array = tensor.asnumpy()
        return array
    kind = _dtype(dtype)
    strides = tensor.stride()
    count = 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    memory = (ctypes.c_char * (count * kind.itemsize)).from_address(tensor.data_ptr())
    array = np.ndarray(shape, kind, memory, 0, tuple(stride * kind.itemsize for stride in strides))
    array.flags.writeable = False
    return array


@functools.lru_cache(maxsize=64)
def _dtype(dtype: Any, default: Any = None) -> np.dtype[Any]:
    """NumPy's name for a MindSpore dtype, whose text is Float32, Int64, Bool, …"""
    return np.dtype(str(default if dtype is None else dtype).lower())


def _number(value: Any) -> Any:
    return value.asnumpy().item() if isinstance(value, ms.Tensor) else value


def _pair(value: Any) -> tuple[int, int]:
    return (int(value[0]), int(value[-1])) if isinstance(value, Sequence) else (int(value), int(value))


def arange(_self: Any, start: Any, end: Any, step: Any, dtype: Any = None) -> ms.Tensor:
    """`start, start + step, …` below `end`; float32 where a float is given without a dtype, else int64."""
    start, end, step = _number(start), _number(end), _number(step)
    is_float = any(isinstance(v, float) for v in (start, end, step))
    return _tensor(np.arange(start, end, step).astype(_dtype(dtype, ms.float32 if is_float else ms.int64)))


def fill_scalar(_self: Any, size: Any, fill_value: Any, dtype: Any = None) -> ms.Tensor:
    """A tensor of the given size, every element `fill_value`."""
    value = _number(fill_value)
    default = ms.bool_ if isinstance(value, bool) else ms.int64 if isinstance(value, int) else ms.float32
    shape = (size,) if isinstance(size, int) else tuple(int(s) for s in size)
    return _tensor(np.full(shape, value, _dtype(dtype, default)))


def lin_space(_self: Any, start: Any, end: Any, steps: Any, dtype: Any = None) -> ms.Tensor:
    """`steps` evenly spaced values, both ends included, computed in float64."""
    values = np.linspace(_number(start), _number(end), int(_number(steps)))
    return _tensor(values.astype(_dtype(dtype, ms.float32)))


def _assign(tensor: ms.Tensor, values: Any) -> ms.Tensor:
    tensor.assign_value(_tensor(np.broadcast_to(values, tensor.shape).astype(_dtype(tensor.dtype))))
    return tensor


def inplace_zero(_self: Any, tensor: ms.Tensor) -> ms.Tensor:
    """Set every element to zero."""
    return _assign(tensor, 0)


def inplace_fill(tensor: ms.Tensor, value: Any) -> ms.Tensor:
    """Set every element to `value` (`Tensor.fill_`)."""
    return _assign(tensor, _number(value))


def inplace_normal(_self: Any, tensor: ms.Tensor, mean: Any, std: Any, seed: Any, offset: Any) -> ms.Tensor:
    """Fill with normal noise; only initial weights use it, which a checkpoint overwrites."""
    rng = np.random.default_rng([abs(int(_number(seed))), abs(int(_number(offset)))])
    return _assign(tensor, rng.normal(_number(mean), _number(std), tensor.shape))


def stack(_self: Any, tensors: Sequence[ms.Tensor], dim: int) -> ms.Tensor:
    """Join along a new axis."""
    return _tensor(np.stack([_array(t) for t in tensors], axis=dim))


def constant_pad(_self: Any, tensor: ms.Tensor, padding: Sequence[int], value: Any = 0.0) -> ms.Tensor:
    """Pad, or crop where negative; `padding` counts (before, after) from the last axis backwards."""
    array = _array(tensor)
    pairs = [(int(padding[i]), int(padding[i + 1])) for i in range(0, len(padding), 2)]
    widths = [(0, 0)] * (array.ndim - len(pairs)) + pairs[::-1]
    array = array[tuple(slice(max(-b, 0), n - max(-a, 0)) for (b, a), n in zip(widths, array.shape, strict=True))]
    shape = [n + max(b, 0) + max(a, 0) for (b, a), n in zip(widths, array.shape, strict=True)]
    # np.full and one copy is several times faster than np.pad on small images.
    padded = np.full(shape, _number(value), array.dtype)
    padded[tuple(slice(max(b, 0), max(b, 0) + n) for (b, _), n in zip(widths, array.shape, strict=True))] = array
    return _tensor(padded)


def repeat_interleave(_self: Any, tensor: ms.Tensor, repeats: int, dim: Any = None, _size: Any = None) -> ms.Tensor:
    """Repeat each element along an axis (flattened without one)."""
    return _tensor(np.repeat(_array(tensor), int(_number(repeats)), axis=dim))


def embedding(_self: Any, indices: ms.Tensor, weight: ms.Tensor, *_training_only: Any) -> ms.Tensor:
    """Rows of `weight` at integer `indices`; shape (*indices.shape, weight.shape[1])."""
    return _tensor(np.take(_array(weight), _array(indices), axis=0))


def cumsum(_self: Any, tensor: ms.Tensor, dim: int, dtype: Any = None) -> ms.Tensor:
    """Running sum along an axis; integers sum in int64."""
    array = _array(tensor)
    kind = _dtype(dtype, ms.int64) if dtype is not None or array.dtype.kind in "bui" else array.dtype
    return _tensor(np.cumsum(array, axis=dim, dtype=kind))


def baddbmm(_self: Any, bias: ms.Tensor, a: ms.Tensor, b: ms.Tensor, beta: Any = 1, alpha: Any = 1) -> ms.Tensor:
    """`beta * bias + alpha * (a @ b)`; with beta 0 the bias is not read at all, so it may be uninitialised."""
    left = _array(a)
    if _number(alpha) != 1:
        # Scaling a factor touches less memory than scaling the product.
        left = left * np.asarray(_number(alpha), left.dtype)
    product = np.matmul(left, _array(b))
    if _number(beta) != 0:
        product += np.asarray(_number(beta), product.dtype) * _array(bias)
    return _tensor(product)


def _elementwise(tensor: ms.Tensor, function: Callable[[Array, Array], None]) -> ms.Tensor:
    """A tensor of the same shape and dtype, filled block by block by `function(values, result)`."""
    array = np.ascontiguousarray(_array(tensor))
    result = np.empty(array.shape, array.dtype)
    flat, out = array.reshape(-1), result.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        function(flat[start : start + _BLOCK], out[start : start + _BLOCK])
    return _tensor(result)


#: erf(x) = x P(x²) / Q(x²) on [-4, 4], highest power first; off by 4e-7 at most. The coefficients are those
#: of Eigen's and XLA's float erf.
_ERF_P: Array = np.array(
    [
        -2.72614225801306e-10,
        2.77068142495902e-08,
        -2.10102402082508e-06,
        -5.69250639462346e-05,
        -7.34990630326855e-04,
        -2.95459980854025e-03,
        -1.60960333262415e-02,
    ],
    np.float32,
)
_ERF_Q: Array = np.array(
    [
        -1.45660718464996e-05,
        -2.13374055278905e-04,
        -1.68282697438203e-03,
        -7.37332916720468e-03,
        -1.42647390514189e-02,
    ],
    np.float32,
)


def erf(values: Array) -> Array:
    """The error function of float32 values."""
    x = np.clip(values, np.float32(-4), np.float32(4))
    square = x * x
    above, below = np.full_like(x, _ERF_P[0]), np.full_like(x, _ERF_Q[0])
    for polynomial, coefficients in ((above, _ERF_P[1:]), (below, _ERF_Q[1:])):
        for coefficient in coefficients:
            polynomial *= square
            polynomial += coefficient
    above *= x
    above /= below
    return above


def gelu(tensor: ms.Tensor, *, approximate: str = "none") -> ms.Tensor:
    """x Φ(x), exact with erf, or the tanh approximation; computed in float32."""

    def exact(values: Array, result: Array) -> None:
        wide = values.astype(np.float32, copy=False)
        part = erf(wide * np.float32(math.sqrt(0.5)))
        part += 1
        part *= wide
        np.multiply(part, np.float32(0.5), out=result, casting="same_kind")

    def with_tanh(values: Array, result: Array) -> None:
        wide = values.astype(np.float32, copy=False)
        part = np.tanh(np.float32(math.sqrt(2 / math.pi)) * (wide + np.float32(0.044715) * (wide * wide * wide)))
        part += 1
        part *= wide
        np.multiply(part, np.float32(0.5), out=result, casting="same_kind")

    return _elementwise(tensor, with_tanh if approximate == "tanh" else exact)


def layer_norm(
    _self: Any, tensor: ms.Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: Any = 1e-5
) -> tuple[ms.Tensor, ms.Tensor, ms.Tensor]:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last `len(shape)` axes; returns (y, mean, rstd)."""
    array = _array(tensor)
    work = array.astype(np.float32, copy=False)
    axes = tuple(range(-(len(shape) if isinstance(shape, Sequence) else 1), 0))
    mean = work.mean(axis=axes, keepdims=True)
    centred = work - mean
    rstd = 1.0 / np.sqrt(np.square(centred).mean(axis=axes, keepdims=True) + np.float32(_number(eps)))
    centred *= rstd
    if weight is not None:
        centred *= _array(weight)
    if bias is not None:
        centred += _array(bias)
    return _tensor(centred.astype(array.dtype, copy=False)), _tensor(mean), _tensor(rstd)


@functools.lru_cache(maxsize=1024)
def _convolution(
    out: int,
    kernel: tuple[int, ...],
    stride: tuple[int, int],
    pad: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Any:
    pads = (pad[0], pad[0], pad[1], pad[1])
    return ops.Conv2D(out, kernel, pad_mode="pad", pad=pads, stride=stride, dilation=dilation, group=groups)


def conv2d(
    _self: Any,
    tensor: ms.Tensor,
    weight: ms.Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: Any = 1,
) -> ms.Tensor:
    """2-D cross-correlation, NCHW: 1x1 as a matrix product, most of 3x3 by Winograd, others by the backend's older
    `Conv2D` (oneDNN)."""
    out, inner, *kernel = weight.shape
    batch, _, height, width = tensor.shape
    stride, padding, dilation, groups = _pair(stride), _pair(padding), _pair(dilation), int(_number(groups))
    is_plain = (kernel, stride, padding, dilation, groups) == ([3, 3], (1, 1), (1, 1), (1, 1), 1)
    if is_plain and tensor.dtype == ms.float32 and winograd.is_faster(inner, out, height, width):
        return _tensor(winograd.conv3x3(_array(tensor), _array(weight), None if bias is None else _array(bias)))
    if (kernel, stride, padding, groups) == ([1, 1], (1, 1), (0, 0), 1):
        pixels = _array(tensor).reshape(batch, inner, height * width)
        array = np.matmul(_array(weight).reshape(out, inner), pixels).reshape(batch, out, height, width)
        result = _tensor(array)
    else:
        if not tensor.is_contiguous():
            tensor = _tensor(np.array(_array(tensor), order="C"))
        result = _convolution(out, tuple(kernel), stride, padding, dilation, groups)(tensor, weight)
        array = result.asnumpy()
    if bias is not None:
        array += _array(bias)[:, None, None]  # the result's own memory, which nobody else has seen yet
    return result


def avg_pool2d(
    _self: Any,
    tensor: ms.Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> ms.Tensor:
    """Mean over windows, NCHW; the models pool only without padding, so nothing else is supported."""
    if _pair(padding) != (0, 0) or ceil_mode or divisor_override is not None:
        raise NotImplementedError("the CPU stand-in for AvgPool2D knows no padding, ceil_mode or divisor_override")
    (kh, kw), (sh, sw) = _pair(kernel_size), _pair(stride or kernel_size)
    array: Array = _array(tensor)
    windows = np.lib.stride_tricks.sliding_window_view(array, (kh, kw), (2, 3))  # type: ignore[call-overload]
    return _tensor(windows[:, :, ::sh, ::sw].mean(axis=(-2, -1), dtype=np.float32).astype(array.dtype))


def bmm(_self: Any, a: ms.Tensor, b: ms.Tensor) -> ms.Tensor:
    """Matrix products of a batch, (N, i, j) by (N, j, k)."""
    return _tensor(np.matmul(_array(a), _array(b)))


def softmax(_self: Any, tensor: ms.Tensor, axis: Any = -1) -> ms.Tensor:
    """e^x / Σ e^x over one axis."""
    array = _array(tensor)
    result = array - array.max(axis, keepdims=True)
    np.exp(result, out=result)
    result /= result.sum(axis, keepdims=True)
    return _tensor(result)


def concatenate(original: Callable[..., Any]) -> Callable[..., Any]:
    """Tensors of one dtype joined along an axis; others by the original."""

    def kernel(primitive: Any, tensors: Sequence[ms.Tensor], axis: Any) -> Any:
        kinds = {tensor.dtype for tensor in tensors}
        if len(kinds) > 1 or ms.bfloat16 in kinds:
            return original(primitive, tensors, axis)
        return _tensor(np.concatenate([_array(tensor) for tensor in tensors], axis))

    return kernel


def exp(_self: Any, tensor: ms.Tensor) -> ms.Tensor:
    """e^x; the backend's own has a relative error of 5e-6, which the sinusoidal time embedding amplifies."""
    return _tensor(np.exp(_array(tensor)))


def dense(_self: Any, tensor: ms.Tensor, weight: ms.Tensor, bias: Any = None) -> ms.Tensor:
    """x @ weight.T + bias over the last axis."""
    array, matrix = _array(tensor), _array(weight)
    result = array.reshape(-1, array.shape[-1]) @ matrix.T
    if bias is not None:
        result += _array(bias)
    return _tensor(result.reshape(*array.shape[:-1], matrix.shape[0]))


def group_norm(
    _self: Any, tensor: ms.Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: Any = 1e-5
) -> tuple[ms.Tensor, ms.Tensor, ms.Tensor]:
    """Normalise each group of channels, NC…, in float32; returns (y, mean, rstd), the last two (N, groups)."""
    array = _array(tensor)
    batch, channels = array.shape[:2]
    groups = array.reshape(batch * num_groups, -1).astype(np.float32, copy=False)
    mean = groups.mean(axis=1, keepdims=True)
    centred = groups - mean
    variance = np.einsum("ij,ij->i", centred, centred)[:, None] / np.float32(groups.shape[1])
    rstd = 1.0 / np.sqrt(variance + np.float32(_number(eps)))
    centred *= rstd
    result = centred.reshape(batch, channels, -1)
    if weight is not None:
        result *= _array(weight)[:, None]
    if bias is not None:
        result += _array(bias)[:, None]
    shape = (batch, num_groups)
    result = result.reshape(array.shape).astype(array.dtype, copy=False)
    return _tensor(result), _tensor(mean.reshape(shape)), _tensor(rstd.reshape(shape))


def silu(_self: Any, tensor: ms.Tensor) -> ms.Tensor:
    """x / (1 + e^-x)."""

    def function(values: Array, result: Array) -> None:
        np.negative(values, out=result)
        np.exp(result, out=result)
        result += 1
        np.divide(values, result, out=result)

    with np.errstate(over="ignore"):  # e^-x may be inf; the quotient is then 0, as it should be
        return _elementwise(tensor, function)


def upsample_nearest(original: Callable[..., Any]) -> Callable[..., Any]:
    """Nearest-neighbour upsampling, NCHW; whole factors in NumPy, others by the original."""

    def kernel(primitive: Any, tensor: ms.Tensor, output_size: Any = None, scales: Any = None) -> Any:
        shape, factors = tensor.shape, scales
        if output_size is not None:
            factors = [size / n for size, n in zip(output_size, shape[2:], strict=True)]
        if len(shape) != 4 or any(f < 1 or f != int(f) for f in factors):
            return original(primitive, tensor, output_size, scales)
        fy, fx = (int(f) for f in factors)
        result = np.empty((*shape[:2], shape[2], fy, shape[3], fx), _dtype(tensor.dtype))
        result[:] = _array(tensor)[:, :, :, None, :, None]
        return _tensor(result.reshape(*shape[:2], shape[2] * fy, shape[3] * fx))

    return kernel


def reshape(original: Callable[..., Any]) -> Callable[..., Any]:
    """`Tensor.reshape`; the copy that a view with strides needs is NumPy's."""

    def kernel(tensor: ms.Tensor, *shape: Any) -> Any:
        if not tensor.is_contiguous() and tensor.dtype != ms.bfloat16:
            tensor = _tensor(np.array(_array(tensor), order="C"))
        return original(tensor, *shape)

    return kernel


def arithmetic(original: Callable[..., Any], function: Callable[..., Array], swapped: bool = False) -> Any:
    """An operator of `Tensor` for floating tensors of one dtype and for numbers; all else goes to the original.

    Args:
        function: NumPy's.
        swapped: the tensor is the right operand.
    """

    def kernel(tensor: ms.Tensor, other: Any) -> Any:
        kind = tensor.dtype
        if kind not in (ms.float32, ms.float16):
            return original(tensor, other)
        left = _array(tensor)
        if type(other) in (int, float):
            right = left.dtype.type(other)
        elif isinstance(other, ms.Tensor) and other.dtype == kind:
            right = _array(other)
        else:
            return original(tensor, other)
        with np.errstate(all="ignore"):  # infinities and NaN travel on silently, as in the original
            return _tensor(np.asarray(function(right, left) if swapped else function(left, right)))

    return kernel


def contains(tensor: ms.Tensor, value: Any) -> bool:
    """`value in tensor`."""
    if not isinstance(value, (int, float, ms.Tensor)):
        return False
    return bool((_array(tensor) == (_array(value) if isinstance(value, ms.Tensor) else value)).any())


def dropout(_self: Any, tensor: ms.Tensor, p: Any, training: Any, inplace: Any, seed: Any, offset: Any) -> ms.Tensor:
    """Identity: this project never trains."""
    if _number(training) and _number(p) > 0:
        raise NotImplementedError("the CPU stand-in for dropout is for inference only")
    return tensor
