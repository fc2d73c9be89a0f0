"""Kernels that MindSpore's CPU backend lacks, or has too inexact or too slow, supplied from one table.

MindSpore dispatches an operator through the `__call__` of its primitive class, or through a method of `Tensor`; these
are the seams used here. Each entry of the table names the seam, a function (`workers.device.numpy_kernels`), and a
probe: a tiny call to the original. `install` replaces only what the probe finds missing (or wrong), so a newer
MindSpore uses its own kernels, and on another backend nothing is touched. Entries without a probe exist in every
version but are several times slower than their NumPy kernel. What is written in NumPy cannot be traced: `ms.jit`
needs kernels of MindSpore.

Must run before mindone is imported, which makes tensors at import.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
from mindspore.ops import functional_overload
from mindspore.ops.auto_generate import gen_ops_prim, pyboost_inner_prim

from workers.device import numpy_kernels


@dataclass(frozen=True)
class Kernel:
    """One stand-in.

    Attributes:
        name: MindSpore's name of the operator.
        owner, attribute: where the original is looked up at every call.
        function: the replacement; takes what the original takes (for a primitive's `__call__`: the primitive first).
        probe: calls the original on a tiny input and returns the result and what it must equal; None: always replace.
    """

    name: str
    owner: Any
    attribute: str
    function: Callable[..., Any]
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


def _example(*shape: int) -> ms.Tensor:
    return ms.Tensor(np.linspace(-1, 1, math.prod(shape), dtype=np.float32).reshape(shape))


def _primitive(name: str, function: Callable[..., Any], probe: Callable[[Any], tuple[Any, Any]]) -> Kernel:
    """A kernel whose seam is the primitive class `name`; the probe gets an instance of it."""
    owner = getattr(gen_ops_prim, name)
    return Kernel(name, owner, "__call__", function, lambda: probe(owner()))


def _faster_operators() -> tuple[Kernel, ...]:
    """Those whose function calls the original where NumPy cannot do it, or does it no faster."""
    tensor, upsample, concat = ms.Tensor, gen_ops_prim.UpsampleNearest2D, pyboost_inner_prim._PyboostConcatPrim
    operators: dict[str, tuple[Any, bool]] = {
        "__add__": (np.add, False),
        "__radd__": (np.add, True),
        "__sub__": (np.subtract, False),
        "__rsub__": (np.subtract, True),
        "__mul__": (np.multiply, False),
        "__rmul__": (np.multiply, True),
        "__truediv__": (np.divide, False),
    }
    return (
        *(
            Kernel(name, tensor, name, numpy_kernels.arithmetic(getattr(tensor, name), function, swapped), None)
            for name, (function, swapped) in operators.items()
        ),
        Kernel("Reshape", tensor, "reshape", numpy_kernels.reshape(tensor.reshape), None),
        Kernel("in", tensor, "__contains__", numpy_kernels.contains, None),
        Kernel("Concat", concat, "__call__", numpy_kernels.concatenate(concat.__call__), None),
        Kernel("UpsampleNearest2D", upsample, "__call__", numpy_kernels.upsample_nearest(upsample.__call__), None),
    )


def _kernels() -> tuple[Kernel, ...]:
    x = _example(1, 4, 4, 4)
    ones = ms.Tensor(np.ones((4, 4, 1, 1), np.float32))
    summed = np.repeat(x.asnumpy().sum(1, keepdims=True), 4, axis=1)
    row = x.asnumpy().reshape(16, 4)
    # Only whole SIMD registers take the inexact path.
    exponents = _example(256) * 9.2
    normed = (row - row.mean(1, keepdims=True)) / np.sqrt(row.var(1, keepdims=True) + 1e-5)
    return (
        _primitive("Arange", numpy_kernels.arange, lambda p: (p(0, 3, 1, ms.int64), [0, 1, 2])),
        _primitive("FillScalar", numpy_kernels.fill_scalar, lambda p: (p((2,), 1.0, ms.float32), [1, 1])),
        _primitive("LinSpaceExt", numpy_kernels.lin_space, lambda p: (p(0.0, 1.0, 3, ms.float32), [0, 0.5, 1])),
        _primitive("InplaceZero", numpy_kernels.inplace_zero, lambda p: (p(_example(2)), [0, 0])),
        _primitive(
            "InplaceNormal",
            numpy_kernels.inplace_normal,
            lambda p: (p(_example(2), 0.0, 0.0, ms.Tensor(0, ms.int64), ms.Tensor(0, ms.int64)), [0, 0]),
        ),
        Kernel(
            "InplaceFillScalar",
            ms.Tensor,
            "fill_",
            numpy_kernels.inplace_fill,
            lambda: (_example(2).fill_(3.0), [3, 3]),
        ),
        Kernel(
            "StackExt",
            pyboost_inner_prim._PyboostStackExtPrim,
            "__call__",
            numpy_kernels.stack,
            lambda: (pyboost_inner_prim.stack_ext_impl([_example(2), _example(2)], 0), [[-1, 1], [-1, 1]]),
        ),
        _primitive("ConstantPadND", numpy_kernels.constant_pad, lambda p: (p(_example(2), (1, 0), 0.0), [0, -1, 1])),
        _primitive(
            "RepeatInterleaveInt",
            numpy_kernels.repeat_interleave,
            lambda p: (p(_example(2), 2, 0, None), [-1, -1, 1, 1]),
        ),
        _primitive(
            "Embedding", numpy_kernels.embedding, lambda p: (p(ms.Tensor([1], ms.int64), _example(2, 2)), [[1 / 3, 1]])
        ),
        _primitive("CumsumExt", numpy_kernels.cumsum, lambda p: (p(_example(3), 0), [-1, -1, 0])),
        _primitive(
            "Baddbmm",
            numpy_kernels.baddbmm,
            lambda p: (p(_example(1, 1, 1), _example(1, 1, 1), _example(1, 1, 1)), [[[0]]]),
        ),
        Kernel(
            "GeluExt",
            functional_overload,
            "_gelu_instance",
            numpy_kernels.gelu,
            lambda: (functional_overload.gelu(_example(2)), [-0.15865525, 0.84134475]),
        ),
        _primitive(
            "LayerNormExt",
            numpy_kernels.layer_norm,
            lambda p: (
                p(ms.Tensor(row), (4,), ms.Tensor(np.ones(4, np.float32)), ms.Tensor(np.zeros(4, np.float32)))[0],
                normed,
            ),
        ),
        _primitive("Conv2DExt", numpy_kernels.conv2d, lambda p: (p(x, ones), summed)),
        _primitive(
            "AvgPool2D",
            numpy_kernels.avg_pool2d,
            lambda p: (p(x, (4, 4), (4, 4)), x.asnumpy().mean((2, 3), keepdims=True)),
        ),
        _primitive("Exp", numpy_kernels.exp, lambda p: (p(exponents), np.exp(exponents.asnumpy()))),
        Kernel("Dense", gen_ops_prim.Dense, "__call__", numpy_kernels.dense, None),
        Kernel("GroupNorm", gen_ops_prim.GroupNorm, "__call__", numpy_kernels.group_norm, None),
        Kernel("SiLU", gen_ops_prim.SiLU, "__call__", numpy_kernels.silu, None),
        Kernel("BatchMatMulExt", gen_ops_prim.BatchMatMulExt, "__call__", numpy_kernels.bmm, None),
        Kernel("Softmax", pyboost_inner_prim._PyboostSoftmaxPrim, "__call__", numpy_kernels.softmax, None),
        *_faster_operators(),
        _primitive(
            "FuncDropoutExt",
            numpy_kernels.dropout,
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
        setattr(kernel.owner, kernel.attribute, kernel.function)
    return tuple(kernel.name for kernel in needed)
