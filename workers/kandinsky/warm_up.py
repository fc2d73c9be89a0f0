"""Each shape is compiled before the clock of its first batch starts (`--graph`), and what that took is kept."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import asdict
from typing import Any

from manifests.batch import Batch, Bucket
from workers.fault_tolerance.guard import PROBE_BUCKET, Guard


class WarmUp:
    """Of one actor.

    Args:
        guard: of its stage.
        graphs: its compiled models (workers/kandinsky/graph.py); None: nothing is compiled.
    """

    def __init__(self, guard: Guard, graphs: Any) -> None:
        self._guard, self._graphs = guard, graphs
        self._known: set[Hashable] = set()

    def before(self, batch: Batch, shape: Hashable, call: Callable[[], object]) -> None:
        """Before a batch: the first of its shape has it compiled.

        Args:
            shape: what decides the shapes of the models' calls.
            call: one of that shape, as short as can be.
        """
        if self._graphs is None or shape in self._known:
            return
        self._guard.prepare(batch, call)
        self._known.add(shape)
        self.report()

    def report(self) -> None:
        """Record with the attempts actor what has been compiled since."""
        if self._graphs is None:
            return
        new = [
            {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(one).items()}
            for one in self._graphs.compilations
        ]
        self._graphs.compilations.clear()
        self._guard.report_compiled(new)


def shortest(bucket: Bucket) -> Bucket:
    """A bucket whose batches have the same shapes, made in the fewest steps."""
    few = {name: getattr(PROBE_BUCKET, name) for name in ("steps", "prior_steps", "strength")}
    return bucket.model_copy(update=few)
