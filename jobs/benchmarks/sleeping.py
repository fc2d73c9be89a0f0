"""`jobs/generate.py` on devices that only sleep, as a script: pools, engine, attempts and storage are the real ones.

SLEEP_LOAD says how many seconds an actor takes to load its model, SLEEP_PRIOR and SLEEP_DECODER how many a call takes;
these are seconds that pass here, each of which stands for SLEEP_FASTER. SLEEP_LOG is a folder that gets a line per
call. The devices are NPUs in Ray's books alone (RAY_OVERRIDE_RESOURCES).
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
from manifests.embeddings.keys import VECTORS
from manifests.errors import RowStatus
from workers.embeddings.lookup import filled, to_embed
from workers.embeddings.origin import prior_origin
from workers.embeddings.storing import only_new
from workers.fault_tolerance.guard import Guard


class _Sleeper:
    """An actor of a device pool, guarded as the real ones are, whose calls take so many seconds."""

    def __init__(self, config: Any, attempts: Any, stage: str, status: RowStatus) -> None:
        self._stage, self._seconds = stage, float(os.environ[f"SLEEP_{stage.upper()}"])
        self._log = Path(os.environ["SLEEP_LOG"]) / f"{os.getpid()}.jsonl"
        self._guard = Guard(stage, status, config.device_timeout, attempts)
        with self._guard.starting():
            time.sleep(float(os.environ["SLEEP_LOAD"]))

    def _sleep(self) -> None:
        began = time.time()
        time.sleep(self._seconds)
        with self._log.open("a") as file:
            print(json.dumps([self._stage, began, time.time()]), file=file)


class SleepingPrior(_Sleeper):
    """Stands where the prior stands; all embeddings are zero."""

    def __init__(self, config: Any, kind: Any, attempts: Any, graphs: Any) -> None:
        super().__init__(config, attempts, "prior", "failed_to_embed")
        self._origin = prior_origin(config.checkpoint, kind)

    def __call__(self, block: pa.Table) -> pa.Table:
        batch = Batch.from_block(block)
        if batch.bucket is not None and to_embed(batch):
            batch = self._guard.run(batch, self._work)
        return batch.drop(["condition_inputs"]).to_block()

    def _work(self, batch: Batch) -> Batch:
        self._sleep()
        rows = to_embed(batch)
        zero = np.zeros(self._origin.width, self._origin.dtype)
        for name in VECTORS:
            batch = filled(batch, name, self._origin.vector_type, dict.fromkeys(rows, zero))
        for name in ("prompt_truncated", "embedding_truncated"):
            batch = filled(batch, name, pa.bool_(), dict.fromkeys(rows, False))
        return batch


class SleepingDecoder(_Sleeper):
    """Stands where the decoder stands; makes grey images."""

    def __init__(self, config: Any, kind: Any, attempts: Any, graphs: Any, tasks: Any) -> None:
        super().__init__(config, attempts, "decoder", "failed_to_generate")

    def __call__(self, block: pa.Table) -> pa.Table:
        return only_new(self._guard.run(Batch.from_block(block), self._work)).to_block()

    def _work(self, batch: Batch) -> Batch:
        self._sleep()
        assert batch.bucket is not None
        grey = np.full((batch.bucket.height, batch.bucket.width, 3), 128, np.uint8).tobytes()
        batch = batch.add("pixels", pa.large_binary(), dict.fromkeys(batch.pending, grey))
        return batch.drop(["image_pixels", "mask_pixels"])


def _main() -> None:
    import jobs.engine.pipeline
    from jobs.schedule import arrange

    for name in ("LOADING_S", "EMBEDDING_S"):
        setattr(arrange, name, getattr(arrange, name) / float(os.environ["SLEEP_FASTER"]))
    # Under their importable name: by it the workers find them.
    from jobs.benchmarks import sleeping
    from jobs.cli import run_script
    from jobs.generate import main

    jobs.engine.pipeline.Prior = sleeping.SleepingPrior  # type: ignore[attr-defined, assignment]
    jobs.engine.pipeline.Decoder = sleeping.SleepingDecoder  # type: ignore[attr-defined, assignment]
    run_script(main)


if __name__ == "__main__":
    _main()
