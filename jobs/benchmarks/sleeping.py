"""`jobs/generate.py` on devices that only sleep, as a script: pools, engine, attempts and storage are the real ones.

SLEEP_PRIOR and SLEEP_DECODER say how many seconds a call takes, SLEEP_LOG a folder that gets a line per decoder call.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from manifests.batch import Batch
from manifests.errors import RowStatus
from workers.fault_tolerance.guard import Guard


class _Sleeper:
    """An actor of a device pool, guarded as the real ones are, whose calls take so many seconds."""

    def __init__(self, config: Any, attempts: Any, stage: str, status: RowStatus) -> None:
        self._seconds = float(os.environ[f"SLEEP_{stage.upper()}"])
        self._guard = Guard(stage, status, config.device_timeout, attempts)
        with self._guard.starting():
            pass

    def __call__(self, block: pa.Table) -> pa.Table:
        return self._guard.run(Batch.from_block(block), self._work).to_block()

    def _work(self, batch: Batch) -> Batch:
        raise NotImplementedError


class SleepingPrior(_Sleeper):
    """Stands where the prior stands; makes no embeddings."""

    def __init__(self, config: Any, kind: Any, attempts: Any) -> None:
        super().__init__(config, attempts, "prior", "failed_to_embed")

    def _work(self, batch: Batch) -> Batch:
        time.sleep(self._seconds)
        return batch.drop(["condition_inputs"])


class SleepingDecoder(_Sleeper):
    """Stands where the decoder stands; makes grey images."""

    def __init__(self, config: Any, kind: Any, attempts: Any, tasks: Any) -> None:
        super().__init__(config, attempts, "decoder", "failed_to_generate")
        self._log = Path(os.environ["SLEEP_LOG"]) / f"{os.getpid()}.jsonl"

    def _work(self, batch: Batch) -> Batch:
        began = time.time()
        time.sleep(self._seconds)
        with self._log.open("a") as file:
            print(json.dumps([began, time.time()]), file=file)
        assert batch.bucket is not None
        grey = np.full((batch.bucket.height, batch.bucket.width, 3), 128, np.uint8).tobytes()
        batch = batch.add("pixels", pa.large_binary(), dict.fromkeys(batch.pending, grey))
        return batch.drop(["image_pixels", "mask_pixels"])


def _main() -> None:
    import jobs.engine.pipeline

    # Under their importable name: by it the workers find them.
    from jobs.benchmarks import sleeping
    from jobs.cli import run_script
    from jobs.generate import main

    jobs.engine.pipeline.Prior = sleeping.SleepingPrior  # type: ignore[attr-defined, assignment]
    jobs.engine.pipeline.Decoder = sleeping.SleepingDecoder  # type: ignore[attr-defined, assignment]
    run_script(main)


if __name__ == "__main__":
    _main()
