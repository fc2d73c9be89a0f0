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

    def note(self, stage: str, dead: Worker, then: str) -> None:
        """A process is found to be gone; nothing happens where that is known.

        Args:
            then: what comes of it.
        """
        if dead.id in self._known:
            return
        cause, words = self._why(dead)
        self._known.add(dead.id)
        self._counts[cause] += 1
        self._newest.append(Loss(dead.id, cause, f"a worker of {stage} was lost on {dead.name} ({words}); {then}"))

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
