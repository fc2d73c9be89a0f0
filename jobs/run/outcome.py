"""What came of a run so far, counted from the files that it has left, not from what anybody reported on the way."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.engine.ledger import Ledger
from jobs.limits.failed_rows import rejected_rows
from manifests import storage
from manifests.commit import READERS, FailureKind, ShardStats, index_name, read_stats, sealed_shards
from manifests.config import RunConfig
from manifests.errors import REJECTED, SUCCESS, IncompleteRunError
from manifests.planning.plan import Plan
from workers.stages.shards import read_failures

#: Reasons shown of each kind of failure.
EXAMPLES = 3


@dataclass(frozen=True)
class Outcome:
    """Rows of the output by how they ended.

    Attributes:
        written: rows with an image.
        failed: rows without one, by status.
        examples: a few reasons of each status, as `id: message`.
    """

    written: int
    failed: Mapping[str, int]
    examples: Mapping[str, Sequence[str]]


def count_outcome(output: str, plan: Plan, numbers: Sequence[int] | None = None) -> Outcome:
    """Compare the plan with what is committed.

    Args:
        numbers: shards to look at, ascending; None for all of the plan.

    Raises:
        IncompleteRunError: a planned shard is not sealed, or holds another number of rows than planned.
    """
    sealed = sealed_shards(output)
    numbers = range(len(plan.shards)) if numbers is None else numbers
    open_shards = [number for number in numbers if number not in sealed]
    if open_shards:
        batches = sum(plan.shards[number].batches for number in open_shards)
        raise IncompleteRunError(
            f"{len(open_shards)} of {len(numbers)} shards are not sealed "
            f"({batches} of {plan.batches} batches); the same command goes on from here"
        )
    with ThreadPoolExecutor(READERS) as pool:
        stats = list(pool.map(lambda number: read_stats(output, number), numbers))
    for number, found in zip(numbers, stats, strict=True):
        planned = plan.shards[number]
        if planned.rows != found.count or found.successes + found.failed != found.count:
            raise IncompleteRunError(
                f"shard {number} has {found.successes} images and {found.failed} failures where "
                f"{planned.rows} rows are planned; remove its files ({number:05d}*) and start again"
            )
    failed: Counter[str] = Counter()
    for found in stats:
        failed.update(found.failed_by_status)
    return Outcome(sum(found.successes for found in stats), dict(failed), _examples(output, stats))


def staged_failures(output: str, ledger: Ledger) -> dict[tuple[int, int], tuple[FailureKind, ...]]:
    """How rows of staged batches failed, by shard and batch; rows that the plan rejects are not among them.

    Raises:
        StorageError: a part is damaged.
    """
    places = list(ledger.staged)
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda place: read_failures(place[0], place[1], output), places))
    kinds = {
        place: tuple(one for one in failures if one.status != REJECTED)
        for place, failures in zip(places, found, strict=True)
    }
    return {place: failures for place, failures in kinds.items() if failures}


def failures_before(config: RunConfig, planned: Plan, ledger: Ledger) -> list[FailureKind]:
    """The failed rows that a start finds: what the plan rejects, and, where `--max-failed` asks, what failed earlier.

    Rows that `--retry-errors` tries again are not among them.
    """
    found = rejected_rows(planned, ledger.batches.keys() - ledger.sealed)
    if config.max_failed is None:
        return found
    found += itertools.chain.from_iterable(staged_failures(config.output, ledger).values())
    committed = _committed_failures(config.output, sorted(ledger.sealed))
    return found + [one for one in committed if not config.retry_errors or one.status == REJECTED]


def _committed_failures(output: str, shards: Sequence[int]) -> list[FailureKind]:
    """How rows of sealed shards failed, by status, with a reason of each."""
    with ThreadPoolExecutor(READERS) as pool:
        stats = list(pool.map(lambda number: read_stats(output, number), shards))
    failed: Counter[str] = Counter()
    for found in stats:
        failed.update(found.failed_by_status)
    examples = _examples(output, stats) if failed else {}
    return [
        FailureKind(status=status, reason="", count=count, example=examples[status][0])
        for status, count in failed.items()
    ]


def _examples(output: str, stats: Sequence[ShardStats]) -> dict[str, list[str]]:
    """The first few reasons of each status; reads no more indexes than that takes."""
    examples: dict[str, list[str]] = {}
    for found in stats:
        wanted = [status for status in found.failed_by_status if len(examples.get(status, ())) < EXAMPLES]
        if not wanted:
            continue
        with storage.open_arrow(storage.join(output, index_name(found.shard))) as file:
            table = pq.read_table(file, columns=["id", "status", "error_message"])
        for row in table.filter(pc.not_equal(table["status"], SUCCESS)).to_pylist():
            shown = examples.setdefault(row["status"], [])
            if len(shown) < EXAMPLES:
                shown.append(f"{row['id']}: {row['error_message']}")
    return examples
