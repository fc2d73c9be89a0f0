"""The driver's ledger: which batches are missing, which shards can be sealed, and how the seals go on.

Both hold shards, not samples, so that the driver stays small: of a shard that is under way the numbers of its
staged batches, of any other nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import ray

from manifests import storage
from manifests.batch import Batch
from manifests.commit import Receipt
from manifests.config import RunConfig
from manifests.errors import KandinskyBatchError, StorageError
from workers.stages.shards import seal

#: Seals that run at the same time; each builds one tar on its node's disk.
MAX_SEALS = 4

#: Seconds that all running seals have been at work before another starts beside them. Each that runs beside others
#: needs a process of its own, which takes longer to start than a small shard to seal.
BESIDE_S = 5.0


@dataclass(frozen=True)
class Missing:
    """The batches of some shards that nobody has made yet; a small container of (shard, batch) pairs.

    Attributes:
        staged: of each shard that is not sealed, the batches that lie staged.
        count: how many batches are missing.
    """

    staged: Mapping[int, frozenset[int]]
    count: int

    def __contains__(self, place: object) -> bool:
        shard, batch = cast("tuple[int, int]", place)
        return shard in self.staged and batch not in self.staged[shard]

    def narrow(self, batch: Batch) -> Batch:
        """All of the batch."""
        return batch


class Wanted(Protocol):
    """What a read task shall yield: some (shard, batch) pairs, and of each all rows or a few."""

    def __contains__(self, place: object) -> bool: ...

    def narrow(self, batch: Batch) -> Batch:
        """The wanted rows of a wanted batch."""


def unfenced() -> None:
    """Stands for a fence where there is no lease."""


class Ledger:
    """Counts staged batches per shard and tells when a shard is whole.

    Args:
        batches: how many batches the plan gives each shard.
        sealed: shards that are committed already.
        staged: batches that lie staged already, per shard.
    """

    def __init__(self, batches: Mapping[int, int], sealed: Iterable[int], staged: Mapping[int, Iterable[int]]) -> None:
        self.batches = batches
        self._sealed = frozenset(sealed) & batches.keys()
        self._staged: dict[int, set[int]] = {
            shard: {batch for batch in found if batch < batches[shard]}
            for shard, found in staged.items()
            if shard in batches
        }

    def missing_of(self, shards: Iterable[int]) -> Missing:
        """What is missing of these shards."""
        staged = {shard: frozenset(self._staged.get(shard, ())) for shard in shards if shard not in self._sealed}
        return Missing(staged, sum(self.batches[shard] - len(found) for shard, found in staged.items()))

    def is_missing(self, shard: int, batch: int) -> bool:
        """True where this batch of a shard of the plan is not staged and not in a sealed shard."""
        return shard not in self._sealed and batch not in self._staged.get(shard, ())

    @property
    def staged(self) -> list[tuple[int, int]]:
        """Shard and batch of what is staged of shards that are not sealed, ascending."""
        return sorted(
            (shard, batch) for shard, found in self._staged.items() if shard not in self._sealed for batch in found
        )

    def drop(self, places: Iterable[tuple[int, int]]) -> None:
        """Have these staged batches made again; what is staged stays until then."""
        for shard, batch in places:
            self._staged[shard].discard(batch)

    @property
    def sealed(self) -> frozenset[int]:
        """Shards of the plan that were committed before."""
        return self._sealed

    @property
    def missing(self) -> int:
        """How many batches are not staged and not in a sealed shard."""
        return self.missing_of(self.batches).count

    @property
    def to_seal(self) -> list[int]:
        """Shards whose batches are all staged, in order; also sealed ones whose parts still lie there."""
        return sorted(
            shard
            for shard, staged in self._staged.items()
            if shard in self._sealed or len(staged) == self.batches[shard]
        )

    def record(self, receipt: Receipt) -> bool:
        """Note a staged batch; True where it is the one that makes its shard whole.

        A batch may be reported twice, because Ray makes a lost block again; the second time changes nothing.
        """
        staged = self._staged.setdefault(receipt.shard, set())
        before = len(staged)
        staged.add(receipt.batch)
        return before < len(staged) == self.batches[receipt.shard]


class Sealer:
    """Seals whole shards, or seals them anew, in Ray tasks beside the run, a few at a time where they take long.

    A seal that fails takes nothing with it: its parts stay, and `poll` or `finish` tells.

    Args:
        batches: of each shard what the task must know about its batches: how many, or which.
        task: `seal`, or another with its arguments.
        tell: hears of each shard that is sealed.
        fence: asked by the task before it replaces or removes a file of the output.
        now: a clock, in seconds.
    """

    def __init__(
        self,
        config: RunConfig,
        batches: Mapping[int, Any],
        task: Callable[..., object] | None = None,
        tell: Callable[[int], None] = lambda shard: None,
        fence: Callable[[], None] = unfenced,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._batches = batches
        self._tell = tell
        self._now = now
        self._waiting: deque[int] = deque()
        # Shard, and when its seal was started.
        self._running: dict[Any, tuple[int, float]] = {}
        self._errors: list[KandinskyBatchError] = []
        self._given = (fence, task or seal)
        # No CPU share: it must run although pools and tasks hold all of them. A task that dies is run again.
        self._task = ray.remote(num_cpus=0, max_retries=3)(_behind)

    @property
    def running(self) -> list[int]:
        """Shards whose seals are under way, the first that was started first."""
        return [shard for shard, _ in self._running.values()]

    def add(self, shard: int) -> None:
        """Seal this shard as soon as there is room."""
        self._waiting.append(shard)
        self.poll()

    def poll(self, timeout: float = 0.0) -> None:
        """Collect seals that ended, and start others in their place.

        Raises:
            StorageError: a shard could not be written; what else is made could not be either.
        """
        if self._running:
            ended, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=timeout)
            for reference in ended:
                self._collect(reference, self._running.pop(reference)[0])
            refused = next((error for error in self._errors if isinstance(error, StorageError)), None)
            if refused is not None:
                raise refused
        if self._waiting and self._has_room():
            shard = self._waiting.popleft()
            place = (shard, self._batches[shard], self._config.output, self._config)
            reference = self._task.remote(*self._given, *place)
            self._running[reference] = (shard, self._now())

    def finish(self, tell: Callable[[int], None] = lambda left: None) -> None:
        """Wait for every seal; `tell` hears how many are left.

        Raises:
            KandinskyBatchError: the first reason of a shard that could not be sealed.
        """
        while self._waiting or self._running:
            tell(len(self._waiting) + len(self._running))
            self.poll(timeout=0.2)
        if self._errors:
            raise self._errors[0]

    def _has_room(self) -> bool:
        long_ago = self._now() - BESIDE_S
        return len(self._running) < MAX_SEALS and all(started <= long_ago for _, started in self._running.values())

    def _collect(self, reference: Any, shard: int) -> None:
        try:
            ray.get(reference)
            self._tell(shard)
        except ray.exceptions.RayTaskError as error:
            # Ray's error carries the remote traceback as its text; the person wants the reason.
            cause = error.cause if isinstance(error.cause, KandinskyBatchError) else None
            self._errors.append(cause or KandinskyBatchError(f"a shard could not be sealed: {error.cause!r}"))
        except ray.exceptions.RayError as error:
            self._errors.append(KandinskyBatchError(f"a shard could not be sealed: {error}"))


def _behind(fence: Callable[[], None], task: Callable[..., object], *given: object) -> object:
    """The task, in a process of its own, behind the fence."""
    with storage.fenced(fence):
        return task(*given)
