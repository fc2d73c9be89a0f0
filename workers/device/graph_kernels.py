"""Operators that compiled models need and MindSpore's CPU backend lacks, composed of operators that it has.

A graph cannot run the NumPy kernels of `workers.device.cpu_kernels`, and its compiler looks operators up elsewhere: not
in the `__call__` of a primitive's class but under the names that mint's functions and cells use as it reads their
source. So these names are bound to the functions below while a model is compiled, and only then: eager code beside it
goes on with the NumPy kernels. What is needed is what `cpu_kernels.install` found missing or inexact, so on another
backend, or with a MindSpore that has the kernels, nothing is bound.

The functions are source for MindSpore's compiler, which knows less than Python: no `zip(strict=…)`, no NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mindspore as ms
from mindspore import mint, ops
from mindspore.ops import auto_generate, functional_overload
from mindspore.ops.function import nn_func

from workers.device import cpu_kernels


def layer_norm(
    tensor: ms.Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> tuple[ms.Tensor, ms.Tensor, ms.Tensor]:
    """As `numpy_kernels.layer_norm`; MindSpore's older operator wants weight and bias."""
    if weight is None:
        weight = mint.ones(shape, dtype=tensor.dtype)
    if bias is None:
        bias = mint.zeros(shape, dtype=tensor.dtype)
    result: tuple[ms.Tensor, ms.Tensor, ms.Tensor] = ops.LayerNorm(-len(shape), -len(shape), eps)(tensor, weight, bias)
    return result


def gelu(tensor: ms.Tensor, *, approximate: str = "none") -> ms.Tensor:
    """x Φ(x), exact with erf, or the tanh approximation."""
    if approximate == "tanh":
        return ops.GeLU()(tensor)
    return 0.5 * tensor * (1.0 + ops.erf(tensor * 0.7071067811865476))


def baddbmm(bias: ms.Tensor, a: ms.Tensor, b: ms.Tensor, beta: float = 1, alpha: float = 1) -> ms.Tensor:
    """`beta * bias + alpha * (a @ b)`."""
    product = ops.BatchMatMul()(a, b)
    if alpha != 1:
        product = product * alpha
    if beta != 1:
        bias = bias * beta
    return bias + product


def conv2d(self: Any, tensor: ms.Tensor) -> ms.Tensor:
    """What a `mint.nn.Conv2d` does, NCHW with zeros around; such a cell keeps its operator, hence the whole method."""
    above, left = self.padding
    result = ops.Conv2D(
        self.out_channels,
        self.kernel_size,
        pad_mode="pad",
        pad=(above, above, left, left),
        stride=self.stride,
        dilation=self.dilation,
        group=self.groups,
    )(tensor, self.weight)
    return result if self.bias is None else ops.BiasAdd()(result, self.bias)


def avg_pool2d(
    tensor: ms.Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> ms.Tensor:
    """Mean over windows, NCHW; the models pool only without padding, and nothing else is looked at."""
    return ops.AvgPool(kernel_size, kernel_size if stride is None else stride)(tensor)


def constant_pad(tensor: ms.Tensor, padding: Any, value: float = 0.0) -> ms.Tensor:
    """Pad with zeros, as the models do; `padding` counts (before, after) from the last axis backwards."""
    axes = len(padding) // 2
    widths = ((0, 0),) * (tensor.ndim - axes)
    for axis in range(axes):
        last = 2 * (axes - 1 - axis)
        widths = (*widths, (padding[last], padding[last + 1]))
    return ops.Pad(widths)(tensor)


def exp(tensor: ms.Tensor) -> ms.Tensor:
    """In float64, whose kernel is exact; only the few frequencies of the timestep's embedding go through it."""
    return ops.Exp()(tensor.to(ms.float64)).to(tensor.dtype)


@dataclass(frozen=True)
class Composed:
    """One function.

    Attributes:
        name: of the operator, as in the table of `workers.device.cpu_kernels`, whose probe decides.
        owner, attribute: where the compiler meets it.
        function: the replacement, of operators that a graph has.
    """

    name: str
    owner: Any
    attribute: str
    function: Callable[..., Any]


KERNELS: tuple[Composed, ...] = (
    Composed("LayerNormExt", nn_func, "layer_norm_ext_op", layer_norm),
    Composed("GeluExt", functional_overload, "_gelu_instance", gelu),
    Composed("Baddbmm", auto_generate, "baddbmm", baddbmm),
    Composed("Conv2DExt", mint.nn.Conv2d, "construct", conv2d),
    Composed("AvgPool2D", nn_func, "avg_pool2d_op", avg_pool2d),
    Composed("ConstantPadND", nn_func, "constant_pad_nd_op", constant_pad),
    Composed("Exp", mint, "exp", exp),
)


@contextmanager
def bound() -> Iterator[None]:
    """While a model is compiled: the names stand for what is composed here."""
    missing = cpu_kernels.install()
    needed = [kernel for kernel in KERNELS if kernel.name in missing]
    before = [getattr(kernel.owner, kernel.attribute) for kernel in needed]
    try:
        for kernel in needed:
            setattr(kernel.owner, kernel.attribute, kernel.function)
        yield
    finally:
        for kernel, original in zip(needed, before, strict=True):
            setattr(kernel.owner, kernel.attribute, original)
