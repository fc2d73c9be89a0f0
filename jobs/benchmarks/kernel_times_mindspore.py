"""Times models on MindSpore's CPU backend: a process that `jobs.benchmarks.kernels` starts and asks.

With the argument `graph` the models are compiled.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from jobs.benchmarks import kernel_cases
from jobs.benchmarks.kernel_cases import Case
from workers.checkpoints.random_weights import weight
from workers.device import device


@functools.lru_cache(maxsize=1)
def _model(size: str, class_name: str) -> Any:
    import mindspore as ms

    from workers.kandinsky import graph, pipelines

    model = pipelines.component(class_name, kernel_cases.SIZES[size][0][class_name])
    for name, parameter in model.parameters_and_names():
        parameter.set_data(ms.Tensor.from_numpy(weight(name, tuple(parameter.shape))))
    if sys.argv[1:] == ["graph"]:
        pipelines.compile_model(model, graph.Graphs())
    return model.set_train(False)


def prepare(case: Case) -> Callable[[], object]:
    """One call of a component with random weights."""
    import mindspore as ms

    model = _model(case.size, kernel_cases.PARTS[case.part])
    # The timestep too: a graph is compiled for each value that is no tensor.
    inputs = {name: ms.Tensor(np.asarray(value)) for name, value in case.inputs().items()}
    call = kernel_cases.step(case, model, inputs)
    return lambda: call().asnumpy()


if __name__ == "__main__":
    device.take("cpu")
    kernel_cases.answer(prepare)
