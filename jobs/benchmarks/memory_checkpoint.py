"""Writes a checkpoint with random float16 weights, of the published size or a tiny one, for `jobs.benchmarks.memory`.

In a process of its own: it asks mindone for the names of all parameters, and holds the weights of the largest model.

    python -m jobs.benchmarks.memory_checkpoint full FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from workers.checkpoints import random_weights
from workers.device import device
from workers.kandinsky import architecture


def main() -> None:
    """Write it into a folder that is not there."""
    size, folder = sys.argv[1], Path(sys.argv[2])
    device.take("cpu")
    from workers.kandinsky.pipelines import parameter_shapes

    folder.mkdir()
    full = {name: {**tiny, **architecture.FULL[name]} for name, tiny in random_weights.CONFIGS.items()}
    random_weights.write(folder, parameter_shapes, full if size == "full" else random_weights.CONFIGS, np.float16)


if __name__ == "__main__":
    main()
