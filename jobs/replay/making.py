"""One image through the stages of a run, one after the other in this process, with the models that its actors load."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from jobs.replay.recorded import Recorded
from manifests.batch import Batch
from manifests.config import RunConfig
from manifests.errors import SUCCESS, CheckpointError, KandinskyBatchError, UsageError
from manifests.records import RECORD_NAMES
from workers.checkpoints import locations
from workers.device.device import DeviceKind
from workers.embeddings.lookup import to_embed
from workers.embeddings.origin import prior_origin
from workers.embeddings.provided import adopt
from workers.stages.decoder import Decoder
from workers.stages.encode import encode_images
from workers.stages.inputs import load_inputs
from workers.stages.prior import Prior


@dataclass(frozen=True)
class Made:
    """An image that was made again.

    Attributes:
        row: its record, columns RECORD_FIELDS.
        pixels: uint8 (height, width, 3), row-major.
        encoded: the image file, in the format of the run.
    """

    row: Mapping[str, Any]
    pixels: bytes
    encoded: bytes


def make(recorded: Recorded, batch: Batch, config: RunConfig, kind: DeviceKind, tell: Callable[[str], None]) -> Made:
    """Make the image of a batch that holds one sample, or copies of it.

    Both models are never in memory at the same time.

    Args:
        recorded: whose weights they must be.
        batch: as the plan gives it to the first stage.
        config: of the run, with the checkpoint's place.
        kind: what to run on.
        tell: hears what is done now.

    Raises:
        UsageError: an input cannot be used, or the checkpoint is missing or another than the run's.
        KandinskyBatchError: the models gave no image.
    """
    assert batch.bucket is not None
    task, graphs = batch.bucket.task, recorded.graphs(kind)
    locations.check(config.checkpoint, [task])
    tell("reading the inputs")
    batch = load_inputs(batch, locations.condition_size(config.checkpoint), config.input_timeout)
    _refuse_failed(batch)
    batch = adopt(batch, prior_origin(config.checkpoint, kind))
    _refuse_failed(batch)
    if to_embed(batch):
        tell("loading the prior")
        prior = Prior(config, kind, graphs=graphs)
        _refuse_other(recorded, config, prior.weights)
        tell("embedding")
        batch = _through(prior, batch)
        del prior
        gc.collect()
    tell("loading the decoder")
    decoder = Decoder(config, kind, graphs=graphs, tasks=[task])
    _refuse_other(recorded, config, decoder.weights)
    tell("decoding")
    batch = _through(decoder, batch)
    (pixels,) = batch.values("pixels", [0])
    batch = encode_images(replace(batch, samples=batch.samples.slice(0, 1)), config)
    _refuse_failed(batch)
    (row,) = batch.samples.select(list(RECORD_NAMES)).to_pylist()
    return Made(row, pixels, batch.values("encoded", [0])[0])


def _through(stage: Callable[[pa.Table], pa.Table], batch: Batch) -> Batch:
    batch = Batch.from_block(stage(batch.to_block()))
    _refuse_failed(batch)
    return batch


def _refuse_failed(batch: Batch) -> None:
    (status,), (message,) = batch.values("status", [0]), batch.values("error_message", [0])
    if status == "failed_to_load":
        raise UsageError(message)
    if status != SUCCESS:
        raise KandinskyBatchError(f"no image came of it: {status}: {message}")


def _refuse_other(recorded: Recorded, config: RunConfig, weights: Mapping[str, str]) -> None:
    """Refuse weights that are not those of the run, as far as its record names them."""
    devices = recorded.report.get("devices", ())
    for name, fingerprint in weights.items():
        known = {device["weights"][name] for device in devices if name in device.get("weights", ())}
        if known and fingerprint not in known:
            raise CheckpointError(
                f"--checkpoint {config.checkpoint}: {name} is not the one that the image was made with (fingerprint "
                f"{fingerprint}, it was {' or '.join(sorted(known))}); say with --checkpoint where that one lies now"
            )
