"""`jobs/generate.py` with device pools that load no model: the whole job, engine and storage are the real ones.

Pixels come from seed and image number, as the noise of the real pipelines does, so images depend on nothing else.
QUICK_SECONDS is how long a device call takes, QUICK_FAILS which ids fail in it. Where QUICK_GO_ON is set, a decoder
makes one batch and waits until that file exists before it makes more. QUICK_PRIOR_FAILS are ids that fail in the prior,
QUICK_PIECE_ROWS bounds a piece of `--schedule phases`. With QUICK_VERIFY it is `jobs/verify.py` instead.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pyarrow as pa

import jobs.engine.ledger
import jobs.engine.pipeline
import jobs.generate
import jobs.schedule.arrange
import jobs.schedule.embedding
import jobs.verify
import workers.stages.shards
from jobs.cli import run_script
from manifests.batch import Batch
from manifests.embeddings.keys import VECTORS
from manifests.errors import RowError
from workers.embeddings.lookup import filled, to_embed
from workers.embeddings.origin import prior_origin
from workers.embeddings.storing import only_new
from workers.fault_tolerance.guard import Guard
from workers.scoring.scorer import STAGE, Scorer

SECONDS = float(os.environ.get("QUICK_SECONDS", "0.2"))
FAILS = frozenset(os.environ.get("QUICK_FAILS", "").split(","))
PRIOR_FAILS = frozenset(os.environ.get("QUICK_PRIOR_FAILS", "").split(","))
GO_ON = Path(os.environ["QUICK_GO_ON"]) if "QUICK_GO_ON" in os.environ else None
_SEAL_DIES = os.environ.get("QUICK_SEAL_DIES", "")


class Prior:
    """Stands where the prior stands and does nothing; in phases, all embeddings are zero, and it fails rows too."""

    def __init__(self, config: Any, kind: Any, *more: Any) -> None:
        self._origin = prior_origin(config.checkpoint, kind) if config.schedule == "phases" else None
        self._seconds, self._fails = SECONDS, PRIOR_FAILS

    def __call__(self, block: pa.Table) -> pa.Table:
        batch = Batch.from_block(block)
        ids = batch.values("id", range(batch.samples.num_rows))
        reason = RowError("failed_to_embed", "a sick prior")
        batch = batch.fail({row: reason for row in batch.pending if ids[row] in self._fails})
        if self._origin is not None and (rows := to_embed(batch)):
            time.sleep(self._seconds / 4)
            zero = np.zeros(self._origin.width, self._origin.dtype)
            for name in VECTORS:
                batch = filled(batch, name, self._origin.vector_type, dict.fromkeys(rows, zero))
            batch = batch.add("embedding_truncated", pa.bool_(), dict.fromkeys(rows, False))
        return batch.drop(["condition_inputs"]).to_block()


class Bytes:
    """A CLIP that sees nothing but the first bytes."""

    def texts(self, texts: Sequence[str]) -> Any:
        return np.array([np.frombuffer(text.encode().ljust(8)[:8], np.uint8) for text in texts], np.float32)

    def images(self, images: Sequence[Any]) -> Any:
        return np.array([np.asarray(image).reshape(-1)[:8] for image in images], np.float32)


class Decoder:
    """Makes noise of the right size."""

    def __init__(self, config: Any, kind: Any, *more: Any) -> None:
        self._seconds, self._fails, self._go_on = SECONDS, FAILS, GO_ON
        self._made = 0
        self._scorer = Scorer(
            config.score_names, Bytes(), Guard(STAGE, "failed_to_generate", 60.0), 8, config.keep_clip
        )

    def __call__(self, block: pa.Table) -> pa.Table:
        batch = Batch.from_block(block)
        while self._made and self._go_on and not self._go_on.exists():
            time.sleep(0.05)
        self._made += 1
        time.sleep(self._seconds)
        ids = batch.values("id", range(batch.samples.num_rows))
        reason = RowError("failed_to_generate", "a sick device")
        batch = batch.fail({row: reason for row in batch.pending if ids[row] in self._fails})
        pixels = {}
        for row, values in batch.rows(["seed", "image_index"], batch.pending).items():
            rng = np.random.default_rng([values["seed"], values["image_index"], 1, 0])
            assert batch.bucket is not None
            size = (batch.bucket.height, batch.bucket.width, 3)
            pixels[row] = rng.integers(0, 256, size, dtype=np.uint8).tobytes()
        batch = self._scorer(batch.add("pixels", pa.large_binary(), pixels)).drop(["image_pixels", "mask_pixels"])
        # What a store knows of prompts that were cut is no business of these models.
        batch = batch.add("prompt_truncated", pa.bool_(), {})
        return only_new(batch).took("decoder", self._seconds).to_block()


# Read by Ray where the driver pickles them, so by value: workers cannot import this script.
jobs.engine.pipeline.Prior = Prior  # type: ignore[misc, assignment]
jobs.engine.pipeline.Decoder = Decoder  # type: ignore[misc, assignment]
if "QUICK_PIECE_ROWS" in os.environ:
    jobs.schedule.arrange.PIECE_ROWS = int(os.environ["QUICK_PIECE_ROWS"])
    jobs.schedule.embedding.STORED_ROWS_PER_ACTOR = 4


def dying_seal(*arguments: Any) -> Any:
    """Seals, but the first three are killed when everything but the stats file is there."""
    folder, shards = Path(_SEAL_DIES), workers.stages.shards
    folder.mkdir(exist_ok=True)
    write = shards.storage.write_atomic

    def write_or_die(url: str, data: bytes) -> None:
        if url.endswith("_stats.json") and len(list(folder.iterdir())) < 3:
            (folder / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        write(url, data)

    shards.storage.write_atomic = write_or_die
    try:
        return shards.seal(*arguments)
    finally:
        shards.storage.write_atomic = write


if _SEAL_DIES:
    jobs.engine.ledger.seal = dying_seal

if __name__ == "__main__":
    run_script(jobs.verify.main if "QUICK_VERIFY" in os.environ else jobs.generate.main)
