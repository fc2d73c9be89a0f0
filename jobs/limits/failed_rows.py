"""When a run ends because too many of its rows fail: more than `--max-failed`, or all of its first thousand alike.

A row that fails is data, and a run goes on past it. But where a column is wrong or a signed URL has expired, all of
them fail, and nobody wants to learn in the morning that a million did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal

from manifests.commit import FailureKind, Receipt
from manifests.config import RunConfig
from manifests.errors import REJECTED, TooManyFailedError
from manifests.planning.plan import Plan

#: Rows of a start that may not all fail in one way.
FIRST = 1000

#: Kinds of failure that a message names.
SHOWN = 3

#: What to do about rows that failed; those that succeeded are not made again.
_CURE = "mend the cause and start the same command with --retry-errors"

_SEVERAL = "several reasons"


def most_failed(words: str, total: int) -> int:
    """The number that `--max-failed` means.

    Args:
        total: rows of this job's share of the index.
    """
    return int(Decimal(words[:-1]) * total / 100) if words.endswith("%") else int(words)


def rejected_rows(planned: Plan, shards: Iterable[int]) -> list[FailureKind]:
    """The rows of some shards that the plan cannot make, as one kind; its example is of the commonest reason."""
    count = sum(planned.shards[number].rejected for number in shards)
    if not count:
        return []
    first, *others = planned.problems
    reason = _SEVERAL if others else f"{first.column}: {first.reason}"
    return [FailureKind(status=REJECTED, reason=reason, count=count, example=f"row {first.rows[0]}: {first.example}")]


class FailureLimit:
    """Counts the failed rows of a job's share, and knows when there are too many.

    Args:
        total: rows of the share's indexes.
        before: those that failed before this start or that the plan rejects.
    """

    def __init__(self, config: RunConfig, total: int, before: Sequence[FailureKind] = ()) -> None:
        self._words, self._total = config.max_failed, total
        self._most = total if self._words is None else most_failed(self._words, total)
        self._counts: Counter[tuple[str, str]] = Counter()
        self._examples: dict[tuple[str, str], str] = {}
        #: False where it does not matter, or not any more, whether all rows of this start fail in one way.
        self._watching = self._words is None or self._most < total
        #: The one way, and how many rows have failed in it.
        self._alike: tuple[tuple[str, str] | None, int] = None, 0
        self._note(before)
        if all(one.status == REJECTED and one.reason != _SEVERAL and one.count == total for one in before):
            # Nothing else can come of this start.
            self._watch(before, 0)

    def add(self, receipt: Receipt) -> None:
        """Count a batch of this start, which is to be given once."""
        # The rows that the plan rejects were counted before. They come first, because nothing has to be done for them,
        # and so say nothing of the others.
        if receipt.bucket is not None:
            self.count(receipt.failure_kinds, receipt.successes)

    def add_retried(self, receipt: Receipt) -> None:
        """Count a batch that was tried again. It says nothing of other rows either: all of its rows failed before."""
        self._note(receipt.failure_kinds)

    def count(self, failures: Sequence[FailureKind], successes: int) -> None:
        """Count rows of this start that ended."""
        self._note(failures)
        self._watch(failures, successes)

    @property
    def too_many(self) -> bool:
        """True where the run shall end."""
        return self._all_alike or self._counts.total() > self._most

    def check(self) -> None:
        """End the run here where too many rows have failed.

        Raises:
            TooManyFailedError: they have; the text says how many, why, and how to go on.
        """
        if self._all_alike:
            kind, count = self._alike
            assert kind is not None
            cure = "correct the manifest" if kind[0] == REJECTED else _CURE
            raise TooManyFailedError(
                f"the first {count:,} images of this start have all failed in one way: {kind[0]}, such as "
                f"{self._examples[kind]}. Either {cure}, or go on all the same with --max-failed 100%"
            )
        if self.too_many:
            named = [
                f"{count:,} {kind[0]}, such as {self._examples[kind]}"
                for kind, count in self._counts.most_common(SHOWN)
            ]
            others = len(self._counts) - len(named)
            raise TooManyFailedError(
                f"{self._counts.total():,} of {self._total:,} images have failed, and --max-failed {self._words} lets "
                f"no more than {self._most:,}: {' | '.join(named)}{f' | and {others} more kinds' if others else ''}. "
                f"Either {_CURE}, or go on with a higher --max-failed"
            )

    @property
    def _all_alike(self) -> bool:
        return self._alike[1] >= FIRST

    def _note(self, failures: Sequence[FailureKind]) -> None:
        for one in failures:
            self._counts[one.status, one.reason] += one.count
            self._examples.setdefault((one.status, one.reason), one.example)

    def _watch(self, failures: Sequence[FailureKind], successes: int) -> None:
        if not self._watching or self._all_alike or not (failures or successes):
            return
        first, count = self._alike
        kinds = {(one.status, one.reason) for one in failures} | ({first} if first is not None else set())
        if successes or len(kinds) > 1:
            self._watching, self._alike = False, (None, 0)
        else:
            self._alike = kinds.pop(), count + sum(one.count for one in failures)
