"""What the models of each pool hold in memory, by the sizes of their weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from manifests.errors import CheckpointError, StorageError
from workers.checkpoints.locations import COMPONENTS, DECODER, INPAINT, PRIOR, repositories, weight_bytes
from workers.checkpoints.repository_files import WITHOUT_WEIGHTS


@dataclass(frozen=True)
class Weights:
    """Bytes that one actor of each pool holds in float32."""

    prior: int
    decoder: int


def weights_of(checkpoint: str, tasks: Iterable[str]) -> Weights | None:
    """Weights that a run of these tasks loads; None where nobody says how large they are.

    An inpainting pipeline beside the other one brings its UNet alone: the rest is shared where it is the same
    (workers/kandinsky/pipelines.py), as it is in the published checkpoint.
    """
    _, *decoders = repositories(tasks)
    if not decoders:
        return None
    held = [(PRIOR, name) for name in COMPONENTS[PRIOR]] + [(decoders[0], name) for name in COMPONENTS[decoders[0]]]
    if decoders == [DECODER, INPAINT]:
        held.append((INPAINT, "unet"))
    try:
        sizes = {place: weight_bytes(checkpoint, *place) for place in held if place[1] not in WITHOUT_WEIGHTS}
    except (StorageError, CheckpointError, OSError):
        return None
    if not all(sizes.values()):
        return None
    prior = sum(size for (repository, _), size in sizes.items() if repository == PRIOR)
    return Weights(prior, sum(sizes.values()) - prior)
