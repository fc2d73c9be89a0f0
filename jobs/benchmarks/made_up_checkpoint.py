"""Writes a checkpoint with random float16 weights: of the published size, a middle one or a tiny one.

In a process of its own: it asks mindone for the names of all parameters, and holds the weights of the largest model.

    python -m jobs.benchmarks.made_up_checkpoint full FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jobs.benchmarks import child
from workers.checkpoints import random_weights
from workers.device import device
from workers.kandinsky import architecture

#: Size -> class name of a component -> what its config has that the tiny one's has not.
SIZES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "random": {},
    "middle": architecture.MIDDLE,
    "full": architecture.FULL,
}


def write(size: str, folder: Path) -> None:
    """Have one of `SIZES` written into a folder that is not there.

    Raises:
        KandinskyBatchError: the process failed.
    """
    command = [sys.executable, "-m", "jobs.benchmarks.made_up_checkpoint", size, str(folder)]
    child.run_checked("writing the checkpoint", command, env=child.plain_environment())


def main() -> None:
    """What that process does."""
    size, folder = sys.argv[1], Path(sys.argv[2])
    device.take("cpu")
    from workers.kandinsky.pipelines import parameter_shapes

    folder.mkdir()
    configs = {name: {**tiny, **SIZES[size].get(name, {})} for name, tiny in random_weights.CONFIGS.items()}
    random_weights.write(folder, parameter_shapes, configs, np.float16)


if __name__ == "__main__":
    main()
