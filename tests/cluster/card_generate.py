"""`jobs/generate.py` on a Ray cluster that offers NPUs which are not there: pools take their card, then only sleep.

Every actor really takes the NPU that Ray gives it (workers/device/device.py), up to the point where MindSpore would be
asked for it. CARDS_LOG names a folder that gets a line per event; CARDS_PRIOR_SECONDS and CARDS_DECODER_SECONDS say how
long a device call takes. A file `allowed` in that folder says how many different batches may be decoded for now.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pyarrow as pa

import jobs.engine.pipeline
from jobs.cli import run_script
from jobs.generate import main
from manifests.batch import Batch
from tests.cluster.events import told
from workers.device import device

LOG = os.environ["CARDS_LOG"]
SECONDS = {
    "prior": float(os.environ["CARDS_PRIOR_SECONDS"]),
    "decoder": float(os.environ["CARDS_DECODER_SECONDS"]),
}


class Sleeper:
    """One actor on one card."""

    stage = ""

    def __init__(self, config: Any, kind: Any, *more: Any) -> None:
        self._asked: list[Any] = []
        device.use_card = self._asked.append  # type: ignore[assignment]
        device.take(kind, self.stage, device.DeviceOptions.of(config, self.stage))
        self._seconds = SECONDS[self.stage]
        self._tell("starts", memory_gb=self._asked[0].memory_gb, cache=os.environ["ASCEND_CACHE_PATH"])

    def _tell(self, event: str, **more: Any) -> None:
        import ray

        line = {
            "event": event,
            "stage": self.stage,
            "pid": os.getpid(),
            "node": ray.get_runtime_context().get_node_id(),
            "npu": device.assigned_npus()[0],
            "visible": os.environ[device.VISIBLE_NPUS],
            # One clock for all processes of the machine, which nobody sets.
            "time": time.monotonic(),
            **more,
        }
        with (Path(LOG) / f"{os.getpid()}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _sleep(self, batch: Batch) -> None:
        self._tell("begins", batch=[batch.shard, batch.index])
        self._wait_until_allowed()
        time.sleep(self._seconds)
        self._tell("ends", batch=[batch.shard, batch.index])

    def _wait_until_allowed(self) -> None: ...


class Prior(Sleeper):
    """Stands where the prior stands."""

    stage = "prior"

    def __call__(self, block: pa.Table) -> pa.Table:
        batch = Batch.from_block(block)
        self._sleep(batch)
        return batch.drop(["condition_inputs"]).to_block()


class Decoder(Sleeper):
    """Stands where the decoder stands; grey images."""

    stage = "decoder"

    def __call__(self, block: pa.Table) -> pa.Table:
        batch = Batch.from_block(block)
        self._sleep(batch)
        assert batch.bucket is not None
        grey = np.full((batch.bucket.height, batch.bucket.width, 3), 128, np.uint8).tobytes()
        batch = batch.add("pixels", pa.large_binary(), dict.fromkeys(batch.pending, grey))
        return batch.drop(["image_pixels", "mask_pixels"]).to_block()

    def _wait_until_allowed(self) -> None:
        allowed = Path(LOG) / "allowed"
        while allowed.exists() and len(decoded()) >= int(allowed.read_text()):
            time.sleep(0.25)


def decoded() -> set[tuple[int, int]]:
    """Batches that any decoder of the run has made, each of them once, however often it was made."""
    return {tuple(line["batch"]) for line in told(Path(LOG)) if (line["event"], line["stage"]) == ("ends", "decoder")}


# Read by Ray where the driver pickles them, so by value: workers cannot import this script.
jobs.engine.pipeline.Prior = Prior  # type: ignore[misc, assignment]
jobs.engine.pipeline.Decoder = Decoder  # type: ignore[misc, assignment]

if __name__ == "__main__":
    run_script(main)
