"""The CLIP image encoder of a run's checkpoint: what it is, and the embeddings of image files by it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from manifests.config import RunConfig
from manifests.errors import UsageError
from workers.checkpoints.locations import PRIOR, local_folder, prior_setting
from workers.device import device
from workers.device.device import DeviceKind
from workers.embeddings.origin import image_encoder_fingerprint

#: Images of one call; on a device that compiles, of every call.
_ROWS = 32


class Encoder:
    """The encoder; loaded when the first image is embedded.

    Args:
        config: `checkpoint` says which one.
        kind: of the device.
    """

    def __init__(self, config: RunConfig, kind: DeviceKind) -> None:
        self._config, self._kind = config, kind

    @cached_property
    def folder(self) -> Path:
        """The checkpoint on this machine.

        Raises:
            CheckpointError, StorageError: it cannot be had.
        """
        return local_folder(self._config.checkpoint, _shapes, [PRIOR])

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same files."""
        return image_encoder_fingerprint(self.folder)

    @cached_property
    def width(self) -> int:
        """Numbers of an embedding."""
        return int(prior_setting(str(self.folder), "image_encoder", "projection_dim") or 512)

    def like(self, config: RunConfig) -> Encoder:
        """The one of another run, on the same device."""
        return Encoder(config, self._kind)

    def vectors(self, files: Iterable[tuple[str, bytes]]) -> Iterator[npt.NDArray[np.float32]]:
        """Embeddings (rows, width) of image files, some at a time.

        Args:
            files: name, for a message, and content.

        Raises:
            UsageError: one is no image.
        """
        waiting = iter(files)
        while some := list(islice(waiting, _ROWS)):
            yield self._model.images([_picture(*one) for one in some])

    @cached_property
    def _model(self) -> Any:
        device.take(self._kind, "decoder", device.DeviceOptions.of(self._config, "decoder"))
        from workers.kandinsky.pipelines import ClipModel

        rows = _ROWS if self._kind == "ascend" else None
        return ClipModel(self.folder, device.dtype(self._kind), rows)


def _shapes(*given: Any) -> Any:
    """For `random` weights only, which are built with MindSpore."""
    from workers.kandinsky import pipelines

    return pipelines.parameter_shapes(*given)


def _picture(name: str, data: bytes) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{name} cannot be read as an image ({error}); take it out, or mend it") from error
