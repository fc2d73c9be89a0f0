"""Kernels that MindSpore's CPU backend lacks, or has too inexact or too slow, supplied from one table.

MindSpore dispatches an operator through the `__call__` of its primitive class; that is the one seam used here. Each
entry of `KERNELS` names the seam, a body made of NumPy or of primitives that do have a CPU kernel, and a probe: a tiny
call to the original. `install` replaces only what the probe finds missing (or wrong), so a newer MindSpore uses its
own kernels, and on another backend nothing is touched. Entries without a probe exist in every version but are several
times slower than their NumPy body. NumPy bodies share memory with MindSpore's CPU tensors in
both directions, so they cost no copy. They cannot be traced: `ms.jit` needs real kernels.

Must run before mindone is imported, which makes tensors at import.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import ops
from mindspore.ops import functional_overload
from mindspore.ops.auto_generate import gen_ops_prim, pyboost_inner_prim

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Kernel:
    """One stand-in.

    Attributes:
        name: MindSpore's name of the operator.
        owner, attribute: where the original is looked up at every call.
        body: the replacement; takes what the original takes (for a primitive's `__call__`: the primitive first).
        probe: calls the original on a tiny input and returns the result and what it must equal; None: always replace.
    """

    name: str
    owner: Any
    attribute: str
    body: Callable[..., Any]
    probe: Callable[[], tuple[Any, Any]] | None

    def is_needed(self) -> bool:
        """Whether the backend has no kernel of this name, or one that is less exact or much slower than it need be."""
        if self.probe is None:
            return True
        try:
            result, expected = self.probe()
            result = result.asnumpy()
        except (RuntimeError, TypeError, ValueError):
            # An unregistered kernel raises RuntimeError; an operator that moved between versions raises the others.
            return True
        return not np.allclose(result, expected, rtol=1e-6, atol=1e-7)


def _tensor(array: Array) -> ms.Tensor:
    """The array as a tensor that shares its memory."""
    return ms.Tensor.from_numpy(np.ascontiguousarray(array))


def _dtype(dtype: Any, default: Any = None) -> np.dtype[Any]:
    """NumPy's name for a MindSpore dtype, whose text is Float32, Int64, Bool, …"""
    return np.dtype(str(default if dtype is None else dtype).lower())


def _number(value: Any) -> Any:
    return value.asnumpy().item() if isinstance(value, ms.Tensor) else value


def _pair(value: Any) -> tuple[int, int]:
    return (int(value[0]), int(value[-1])) if isinstance(value, Sequence) else (int(value), int(value))


# Bodies. `_self` is the primitive, which no body needs.


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
    return _tensor(np.stack([t.asnumpy() for t in tensors], axis=dim))


def constant_pad(_self: Any, tensor: ms.Tensor, padding: Sequence[int], value: Any = 0.0) -> ms.Tensor:
    """Pad, or crop where negative; `padding` counts (before, after) from the last axis backwards."""
    array = tensor.asnumpy()
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
    return _tensor(np.repeat(tensor.asnumpy(), int(_number(repeats)), axis=dim))


def embedding(_self: Any, indices: ms.Tensor, weight: ms.Tensor, *_training_only: Any) -> ms.Tensor:
    """Rows of `weight` at integer `indices`; shape (*indices.shape, weight.shape[1])."""
    return _tensor(np.take(weight.asnumpy(), indices.asnumpy(), axis=0))


def cumsum(_self: Any, tensor: ms.Tensor, dim: int, dtype: Any = None) -> ms.Tensor:
    """Running sum along an axis; integers sum in int64."""
    array = tensor.asnumpy()
    kind = _dtype(dtype, ms.int64) if dtype is not None or array.dtype.kind in "bui" else array.dtype
    return _tensor(np.cumsum(array, axis=dim, dtype=kind))


def baddbmm(_self: Any, bias: ms.Tensor, a: ms.Tensor, b: ms.Tensor, beta: Any = 1, alpha: Any = 1) -> ms.Tensor:
    """`beta * bias + alpha * (a @ b)`; with beta 0 the bias is not read at all, so it may be uninitialised."""
    product = np.matmul(a.asnumpy(), b.asnumpy())
    if _number(alpha) != 1:
        product *= np.asarray(_number(alpha), product.dtype)
    if _number(beta) != 0:
        product = product + np.asarray(_number(beta), product.dtype) * bias.asnumpy()
    return _tensor(product)


def gelu(tensor: ms.Tensor, *, approximate: str = "none") -> ms.Tensor:
    """x Φ(x), exact with erf, or the tanh approximation."""
    if approximate == "tanh":
        array = tensor.asnumpy()
        inner = np.tanh(math.sqrt(2 / math.pi) * (array + 0.044715 * array**3))
        return _tensor((0.5 * array * (1.0 + inner)).astype(array.dtype))
    return 0.5 * tensor * (1.0 + ops.erf(tensor * math.sqrt(0.5)))


def layer_norm(
    _self: Any, tensor: ms.Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: Any = 1e-5
) -> tuple[ms.Tensor, ms.Tensor, ms.Tensor]:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last `len(shape)` axes; returns (y, mean, rstd)."""
    array = tensor.asnumpy()
    work = array.astype(np.float32, copy=False)
    axes = tuple(range(-(len(shape) if isinstance(shape, Sequence) else 1), 0))
    mean = work.mean(axis=axes, keepdims=True)
    centred = work - mean
    rstd = 1.0 / np.sqrt(np.square(centred).mean(axis=axes, keepdims=True) + np.float32(_number(eps)))
    centred *= rstd
    if weight is not None:
        centred *= weight.asnumpy()
    if bias is not None:
        centred += bias.asnumpy()
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
    """2-D cross-correlation, NCHW, by the backend's older `Conv2D` operator (oneDNN)."""
    out, _, *kernel = weight.shape
    operator = _convolution(out, tuple(kernel), _pair(stride), _pair(padding), _pair(dilation), int(_number(groups)))
    result = operator(tensor, weight)
    return result if bias is None else ops.bias_add(result, bias)


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
    array: Array = tensor.asnumpy()
    windows = np.lib.stride_tricks.sliding_window_view(array, (kh, kw), (2, 3))  # type: ignore[call-overload]
    return _tensor(windows[:, :, ::sh, ::sw].mean(axis=(-2, -1), dtype=np.float32).astype(array.dtype))


def exp(_self: Any, tensor: ms.Tensor) -> ms.Tensor:
    """e^x; the backend's own has a relative error of 5e-6, which the sinusoidal time embedding amplifies."""
    return _tensor(np.exp(tensor.asnumpy()))


def dense(_self: Any, tensor: ms.Tensor, weight: ms.Tensor, bias: Any = None) -> ms.Tensor:
    """x @ weight.T + bias over the last axis."""
    array, matrix = tensor.asnumpy(), weight.asnumpy()
    result = array.reshape(-1, array.shape[-1]) @ matrix.T
    if bias is not None:
        result += bias.asnumpy()
    return _tensor(result.reshape(*array.shape[:-1], matrix.shape[0]))


def group_norm(
    _self: Any, tensor: ms.Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: Any = 1e-5
) -> tuple[ms.Tensor, ms.Tensor, ms.Tensor]:
    """Normalise each group of channels, NC…, in float32; returns (y, mean, rstd), the last two (N, groups)."""
    array = tensor.asnumpy()
    batch, channels = array.shape[:2]
    groups = array.reshape(batch * num_groups, -1).astype(np.float32, copy=False)
    mean = groups.mean(axis=1, keepdims=True)
    centred = groups - mean
    variance = np.einsum("ij,ij->i", centred, centred)[:, None] / np.float32(groups.shape[1])
    rstd = 1.0 / np.sqrt(variance + np.float32(_number(eps)))
    centred *= rstd
    result = centred.reshape(batch, channels, -1)
    if weight is not None:
        result *= weight.asnumpy()[:, None]
    if bias is not None:
        result += bias.asnumpy()[:, None]
    shape = (batch, num_groups)
    result = result.reshape(array.shape).astype(array.dtype, copy=False)
    return _tensor(result), _tensor(mean.reshape(shape)), _tensor(rstd.reshape(shape))


def silu(_self: Any, tensor: ms.Tensor) -> ms.Tensor:
    """x / (1 + e^-x)."""
    array = tensor.asnumpy()
    with np.errstate(over="ignore"):  # e^-x may be inf; the quotient is then 0, as it should be
        result = np.exp(-array)
    result += 1
    np.divide(array, result, out=result)
    return _tensor(result)


def dropout(_self: Any, tensor: ms.Tensor, p: Any, training: Any, inplace: Any, seed: Any, offset: Any) -> ms.Tensor:
    """Identity: this project never trains."""
    if _number(training) and _number(p) > 0:
        raise NotImplementedError("the CPU stand-in for dropout is for inference only")
    return tensor


def _example(*shape: int) -> ms.Tensor:
    return ms.Tensor(np.linspace(-1, 1, math.prod(shape), dtype=np.float32).reshape(shape))


def _primitive(name: str, body: Callable[..., Any], probe: Callable[[Any], tuple[Any, Any]]) -> Kernel:
    """A kernel whose seam is the primitive class `name`; the probe gets an instance of it."""
    owner = getattr(gen_ops_prim, name)
    return Kernel(name, owner, "__call__", body, lambda: probe(owner()))


def _kernels() -> tuple[Kernel, ...]:
    x = _example(1, 4, 4, 4)
    ones = ms.Tensor(np.ones((4, 4, 1, 1), np.float32))
    summed = np.repeat(x.asnumpy().sum(1, keepdims=True), 4, axis=1)
    row = x.asnumpy().reshape(16, 4)
    # Only whole SIMD registers take the inexact path.
    exponents = _example(256) * 9.2
    normed = (row - row.mean(1, keepdims=True)) / np.sqrt(row.var(1, keepdims=True) + 1e-5)
    return (
        _primitive("Arange", arange, lambda p: (p(0, 3, 1, ms.int64), [0, 1, 2])),
        _primitive("FillScalar", fill_scalar, lambda p: (p((2,), 1.0, ms.float32), [1, 1])),
        _primitive("LinSpaceExt", lin_space, lambda p: (p(0.0, 1.0, 3, ms.float32), [0, 0.5, 1])),
        _primitive("InplaceZero", inplace_zero, lambda p: (p(_example(2)), [0, 0])),
        _primitive(
            "InplaceNormal",
            inplace_normal,
            lambda p: (p(_example(2), 0.0, 0.0, ms.Tensor(0, ms.int64), ms.Tensor(0, ms.int64)), [0, 0]),
        ),
        Kernel("InplaceFillScalar", ms.Tensor, "fill_", inplace_fill, lambda: (_example(2).fill_(3.0), [3, 3])),
        Kernel(
            "StackExt",
            pyboost_inner_prim._PyboostStackExtPrim,
            "__call__",
            stack,
            lambda: (pyboost_inner_prim.stack_ext_impl([_example(2), _example(2)], 0), [[-1, 1], [-1, 1]]),
        ),
        _primitive("ConstantPadND", constant_pad, lambda p: (p(_example(2), (1, 0), 0.0), [0, -1, 1])),
        _primitive("RepeatInterleaveInt", repeat_interleave, lambda p: (p(_example(2), 2, 0, None), [-1, -1, 1, 1])),
        _primitive("Embedding", embedding, lambda p: (p(ms.Tensor([1], ms.int64), _example(2, 2)), [[1 / 3, 1]])),
        _primitive("CumsumExt", cumsum, lambda p: (p(_example(3), 0), [-1, -1, 0])),
        _primitive("Baddbmm", baddbmm, lambda p: (p(_example(1, 1, 1), _example(1, 1, 1), _example(1, 1, 1)), [[[0]]])),
        Kernel(
            "GeluExt",
            functional_overload,
            "_gelu_instance",
            gelu,
            lambda: (functional_overload.gelu(_example(2)), [-0.15865525, 0.84134475]),
        ),
        _primitive(
            "LayerNormExt",
            layer_norm,
            lambda p: (
                p(ms.Tensor(row), (4,), ms.Tensor(np.ones(4, np.float32)), ms.Tensor(np.zeros(4, np.float32)))[0],
                normed,
            ),
        ),
        _primitive("Conv2DExt", conv2d, lambda p: (p(x, ones), summed)),
        _primitive("AvgPool2D", avg_pool2d, lambda p: (p(x, (4, 4), (4, 4)), x.asnumpy().mean((2, 3), keepdims=True))),
        _primitive("Exp", exp, lambda p: (p(exponents), np.exp(exponents.asnumpy()))),
        Kernel("Dense", gen_ops_prim.Dense, "__call__", dense, None),
        Kernel("GroupNorm", gen_ops_prim.GroupNorm, "__call__", group_norm, None),
        Kernel("SiLU", gen_ops_prim.SiLU, "__call__", silu, None),
        _primitive(
            "FuncDropoutExt",
            dropout,
            lambda p: (p(_example(2), 0.0, False, False, ms.Tensor(0, ms.int64), ms.Tensor(0, ms.int64)), [-1, 1]),
        ),
    )


@functools.lru_cache(maxsize=1)
def install() -> tuple[str, ...]:
    """Supply what the CPU backend lacks; on any other backend do nothing.

    Also makes dispatch blocking, since asynchronous PyNative dispatch is several times slower on a few cores.

    Returns:
        The names of the operators that were replaced. Repeated calls return the first call's answer.
    """
    if ms.get_context("device_target") != "CPU":
        return ()
    ms.runtime.launch_blocking()
    needed = [kernel for kernel in _kernels() if kernel.is_needed()]
    for kernel in needed:
        setattr(kernel.owner, kernel.attribute, kernel.body)
    return tuple(kernel.name for kernel in needed)
