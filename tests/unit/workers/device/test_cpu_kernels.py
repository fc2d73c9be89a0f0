"""Which CPU stand-ins are put in place, and those of them that take no shapes; the others are in test_numpy_kernels."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def mint() -> ModuleType:
    from workers.device import device

    device.take("cpu")
    from mindspore import mint

    return mint


def _tensor(array: Array) -> Any:
    import mindspore as ms

    return ms.Tensor(array)


def _values(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_exp_is_exact_to_float32(mint: ModuleType) -> None:
    x = np.linspace(-10, 10, 1001, dtype=np.float32)
    assert np.allclose(mint.exp(_tensor(x)).asnumpy(), np.exp(x.astype(np.float64)), rtol=2e-7)


def test_pooling_takes_the_mean_of_each_window(mint: ModuleType) -> None:
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
from workers.device import cpu_kernels
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
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert result.stdout.strip().endswith("done"), result.stderr[-2000:]
