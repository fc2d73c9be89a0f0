"""As `kernel_times_mindspore`, by PyTorch diffusers: runs on an interpreter that has them, never on the project's."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from jobs.benchmarks import kernel_cases
from jobs.benchmarks.kernel_cases import Case


@functools.lru_cache(maxsize=1)
def _model(size: str, class_name: str) -> Any:
    import diffusers

    return getattr(diffusers, class_name)(**kernel_cases.SIZES[size][0][class_name]).eval()


def prepare(case: Case) -> Callable[[], object]:
    """One call of a component with random weights."""
    import torch

    model = _model(case.size, kernel_cases.PARTS[case.part])
    inputs = {k: v if isinstance(v, int) else torch.from_numpy(v) for k, v in case.inputs().items()}
    return kernel_cases.step(case, model, inputs)


if __name__ == "__main__":
    import torch

    torch.set_grad_enabled(False)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    kernel_cases.answer(prepare)
