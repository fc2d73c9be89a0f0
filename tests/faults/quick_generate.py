"""`jobs/generate.py` with device pools that load no model: the whole job, engine and storage are the real ones.

Pixels come from seed and image number, as the noise of the real pipelines does, so images depend on nothing else.
QUICK_SECONDS is how long a device call takes.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pyarrow as pa

import jobs.pipeline
from jobs.cli import run_script
from jobs.generate import main
from manifests.batch import Batch

SECONDS = float(os.environ.get("QUICK_SECONDS", "0.2"))


class Prior:
    """Stands where the prior stands and does nothing."""

    def __init__(self, config: Any, kind: Any, *more: Any) -> None: ...

    def __call__(self, block: pa.Table) -> pa.Table:
        return Batch.from_block(block).drop(["condition_inputs"]).to_block()


class Decoder:
    """Makes noise of the right size; a prompt with the word `nan` fails unless the file FIXED is there."""

    def __init__(self, config: Any, kind: Any, *more: Any) -> None:
        self._seconds = SECONDS

    def __call__(self, block: pa.Table) -> pa.Table:
        batch = Batch.from_block(block)
        time.sleep(self._seconds)
        pixels = {}
        for row, values in batch.rows(["seed", "image_index"], batch.pending).items():
            rng = np.random.default_rng([values["seed"], values["image_index"], 1, 0])
            assert batch.bucket is not None
            size = (batch.bucket.height, batch.bucket.width, 3)
            pixels[row] = rng.integers(0, 256, size, dtype=np.uint8).tobytes()
        return batch.add("pixels", pa.large_binary(), pixels).drop(["image_pixels", "mask_pixels"]).to_block()


# Read by Ray where the driver pickles them, so by value: workers cannot import this script.
jobs.pipeline.Prior = Prior  # type: ignore[misc, assignment]
jobs.pipeline.Decoder = Decoder  # type: ignore[misc, assignment]

if __name__ == "__main__":
    run_script(main)
