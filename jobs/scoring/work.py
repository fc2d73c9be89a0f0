"""What a process that scores holds: the model on its device, and where inputs and embeddings are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from manifests.config import RunConfig
from workers.checkpoints.locations import PRIOR, condition_size, local_folder
from workers.device import device
from workers.device.device import DeviceKind
from workers.embeddings.lookup import remembered
from workers.fault_tolerance.guard import Guard
from workers.kandinsky.batch_shape import FullCalls
from workers.kandinsky.graph_choice import NOTHING
from workers.scoring.columns import columns_of
from workers.scoring.scorer import STAGE, Scorer, make_scorer


class Work:
    """One process's.

    Args:
        config: of the output, with the scores that it is to have.
        attempts: the attempts actor, if there is one.

    Attributes:
        columns: of all scores; memory: the embedding store; condition_size: edge of what CLIP sees of a condition.
    """

    def __init__(self, config: RunConfig, kind: DeviceKind, attempts: Any = None) -> None:
        self.config, self._kind = config, kind
        self.columns = columns_of(config.score_names, config.checkpoint)
        self.memory, self.condition_size = remembered(config, kind), condition_size(config.checkpoint)
        self._guard = Guard(STAGE, "failed_to_generate", config.device_timeout, attempts)
        self._scorer: Scorer | None = None

    def scorer(self, names: Sequence[str], keep: bool) -> Scorer:
        """The model for some scores; it is loaded when it is first asked for."""
        if self._scorer is None:
            with self._guard.starting():
                device.take(self._kind, "decoder", device.DeviceOptions.of(self.config, "decoder"))
                from workers.kandinsky import pipelines

                folder = local_folder(self.config.checkpoint, pipelines.parameter_shapes, [PRIOR])
                rows = FullCalls.of(self.config, self._kind, NOTHING).clip
                self._scorer = make_scorer(self.config, folder, device.dtype(self._kind), rows, self._guard)
        assert self._scorer is not None, "whoever asks has seen that CLIP is needed"
        return self._scorer.of(names, keep)
