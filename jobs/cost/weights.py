"""What the models of each pool hold in memory, by the sizes of their weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from manifests.errors import CheckpointError, StorageError
from workers.checkpoints.locations import OWN, repositories, weight_bytes


@dataclass(frozen=True)
class Weights:
    """Bytes that one actor of each pool holds in float32."""

    prior: int
    decoder: int


def weights_of(checkpoint: str, tasks: Iterable[str]) -> Weights | None:
    """Weights that a run of these tasks loads; None where nobody says how large they are. Our own count as nothing.

    An inpainting pipeline beside the other one brings its UNet alone: the rest is shared where it is the same
    (workers/kandinsky/pipelines.py), as it is in the published checkpoint.
    """
    try:
        prior, *decoders = [weight_bytes(checkpoint, repository) for repository in repositories(tasks)]
    except (StorageError, CheckpointError, OSError):
        return None
    if not decoders:
        return None
    first, *beside = decoders
    held = [*first.values(), *(sizes["unet"] for sizes in beside)]
    if checkpoint not in OWN and not all((*prior.values(), *held)):
        return None
    return Weights(sum(prior.values()), sum(held))
