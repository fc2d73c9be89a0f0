"""Processes that ended in the middle of a run: which, why, and what of their work is done again.

A death is noticed where its actor starts again or its batch is taken up by somebody else, whichever comes first.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from workers.fault_tolerance.attempts import Worker

Cause = Literal["out of memory", "hung", "node lost", "killed or crashed"]

#: Losses that are kept with their words; all are counted.
KEPT = 200


@dataclass(frozen=True)
class Loss:
    """A process that was lost.

    Attributes:
        id: Ray's id of the process.
        cause: why, in few words that many share.
        words: what was lost and why, for a person.
    """

    id: str
    cause: Cause
    words: str


class Losses:
    """The losses of a run.

    Args:
        lost_nodes: tells the ids of nodes that are gone.
        own_words: by process, why it has ended itself.
        engines_words: tells what the engine knows about the end of a process, "" where it knows nothing.
    """

    def __init__(
        self, lost_nodes: Callable[[], set[str]], own_words: Mapping[str, str], engines_words: Callable[[str], str]
    ) -> None:
        self._lost_nodes = lost_nodes
        self._own_words = own_words
        self._engines_words = engines_words
        self._newest: deque[Loss] = deque(maxlen=KEPT)
        self._known: set[str] = set()
        self._counts: Counter[str] = Counter()
        #: Batches that a process was lost with.
        self.batches_again = 0

    def note(self, stage: str, dead: Worker, then: str) -> bool:
        """A process is found to be gone; False where that is known.

        Args:
            then: what comes of it.
        """
        if dead.id in self._known:
            return False
        cause, words = self._why(dead)
        self._known.add(dead.id)
        self._counts[cause] += 1
        self._newest.append(Loss(dead.id, cause, f"a worker of {stage} was lost on {dead.name} ({words}); {then}"))
        return True

    def has_ended(self, worker: Worker) -> bool:
        """True where it is known that the process came to its end by itself, or by the engine for want of memory."""
        return worker.id in self._own_words or bool(self._engines_words(worker.id))

    @property
    def newest(self) -> list[Loss]:
        """The newest ones, the oldest of these first."""
        return list(self._newest)

    @property
    def by_cause(self) -> dict[str, int]:
        """How many, the commonest cause first."""
        return dict(self._counts.most_common())

    def _why(self, dead: Worker) -> tuple[Cause, str]:
        if dead.node in self._lost_nodes():
            return "node lost", "its node is gone"
        if dead.id in self._own_words:
            return "hung", self._own_words[dead.id]
        if engines_words := self._engines_words(dead.id):
            return "out of memory", engines_words
        return "killed or crashed", "the process ended without a word: a crash in a library, or a kill"


def lost_nodes() -> set[str]:
    """Ids of the cluster's nodes that are gone."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if not node["Alive"]}


def engines_words(worker_id: str) -> str:
    """What Ray knows of a process's end. It knows one thing that nobody else does: that it was Ray that ended it."""
    try:
        import ray
        from ray._private.state import state
        from ray.core.generated import common_pb2, gcs_pb2

        # Ray's public way to this table needs its dashboard, which a quiet cluster of ours does not run.
        raw = state._connect_and_get_accessor().get_worker_info(ray.WorkerID.from_hex(worker_id))
        found = gcs_pb2.WorkerTableData.FromString(raw)
    except Exception:  # only words are lost
        return ""
    if found.exit_type == common_pb2.NODE_OUT_OF_MEMORY:
        return "out of memory: Ray ended it to keep its node alive"
    return ""
