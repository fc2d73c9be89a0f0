"""The facts of several jobs that share one plan (`--shards`), put together as those of one run."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

from jobs.monitoring.facts import INVALID, NEWEST, Count, PoolFacts, RunFacts, TimeLeft


def together(parts: Sequence[RunFacts]) -> RunFacts:
    """Several shares of one plan as one run; `phase` and failures are those of the first that has some.

    Args:
        parts: at least one.
    """
    if len(parts) == 1:
        return parts[0]
    lefts = [part.left for part in parts if part.left is not None]
    known = len(lefts) == sum(part.done < part.total for part in parts)
    ends = {name: max((getattr(left, name) for left in lefts), default=0.0) for name in TimeLeft.model_fields}
    turns = itertools.chain.from_iterable(itertools.zip_longest(*(part.failures for part in parts)))
    return RunFacts(
        phase=next((part.phase for part in parts if part.pools), parts[0].phase),
        detail="",
        seconds=max(part.seconds for part in parts),
        counts=_counts_together([count for part in parts for count in part.counts]),
        rate=_sum([part.rate for part in parts]),
        overall_rate=_sum([part.overall_rate for part in parts]),
        left=TimeLeft(**ends) if lefts and known else None,
        pools=_pools_together([pool for part in parts for pool in part.pools]),
        sealed=sum(part.sealed for part in parts),
        shards=sum(part.shards for part in parts),
        lost=sum((Counter(part.lost) for part in parts), Counter()),
        batches_again=sum(part.batches_again for part in parts),
        failures=tuple(failure for failure in turns if failure is not None)[:NEWEST],
    )


def _sum(rates: Sequence[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return sum(known) if known else None


def _counts_together(counts: Sequence[Count]) -> tuple[Count, ...]:
    found: dict[str, Count] = {}
    for one in counts:
        before = found.get(one.name)
        found[one.name] = (
            one
            if before is None
            else Count(
                name=one.name,
                total=before.total + one.total,
                done=before.done + one.done,
                failed=before.failed + one.failed,
            )
        )
    return tuple(found[name] for name in sorted(found, key=lambda name: (name == INVALID, name)))


def _pools_together(pools: Sequence[PoolFacts]) -> tuple[PoolFacts, ...]:
    found = []
    for name in dict.fromkeys(pool.name for pool in pools):
        same = [pool for pool in pools if pool.name == name]
        measured = [pool for pool in same if pool.in_calls is not None and pool.up]
        up = sum(pool.up for pool in measured)
        rates = [(pool.tflops, max(1, pool.up)) for pool in same if pool.tflops is not None]
        found.append(
            PoolFacts(
                name=name,
                size=sum(pool.size for pool in same if not pool.finished),
                up=sum(pool.up for pool in same),
                loading=sum(pool.loading for pool in same),
                compiling=sum(pool.compiling for pool in same),
                waiting=sum(pool.waiting for pool in same),
                in_calls=sum((pool.in_calls or 0.0) * pool.up for pool in measured) / up if up else None,
                tflops=sum(rate * weight for rate, weight in rates) / sum(weight for _, weight in rates)
                if rates
                else None,
                finished=all(pool.finished for pool in same),
            )
        )
    return tuple(found)
