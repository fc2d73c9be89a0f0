"""The facts of a run as plain lines, for logs and for terminals that are too small for more."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.monitoring.facts import PoolFacts, RunFacts, TimeLeft
from jobs.monitoring.pace import duration
from manifests.commit import RowFailure


def brief(facts: RunFacts) -> str:
    """One line: phase, images done, rate, failures and time left, whatever of them is known."""
    phase = f"{facts.phase} ({facts.detail})" if facts.detail else facts.phase
    count = f" {facts.done}/{facts.total} images" if facts.counts else ""
    known = (
        rate_words(facts.rate) if facts.rate is not None else "",
        f"{facts.failed} failed" if facts.failed else "",
        f"{duration(facts.left.likely)} left" if facts.left else "",
    )
    return ", ".join([f"{phase}{count}", *filter(None, known)])


def briefest(facts: RunFacts) -> str:
    """A line for a terminal that has little room even for that."""
    left = f" {duration(facts.left.likely)} left" if facts.left else ""
    return f"{facts.done}/{facts.total}{left}" if facts.counts else facts.phase


def details(facts: RunFacts) -> Iterator[str]:
    """The other facts, a line for each kind of them that there is."""
    if len(facts.counts) > 1:
        yield ", ".join(
            f"{count.name} {count.done}/{count.total}" + (f" ({count.failed} failed)" if count.failed else "")
            for count in facts.counts
        )
    if facts.overall_rate is not None and facts.rate is not None:
        left = f", {left_words(facts.left)} left" if facts.left else ""
        yield f"{rate_words(facts.rate)} now, {rate_words(facts.overall_rate)} overall{left}"
    for pool in facts.pools:
        waiting = "" if pool.finished else f", {batches_words(pool.waiting)} waiting"
        calls = f", {share_words(pool)} of the time in device calls" if pool.in_calls is not None else ""
        calls += f", {work_words(pool)} TFLOP/s in its calls" if pool.tflops is not None else ""
        yield f"{pool.name}: {actor_words(pool)}{calls}{waiting}"
    if facts.shards:
        yield f"{facts.sealed} of {facts.shards} shards sealed"
    if facts.lost:
        yield f"lost: {lost_words(facts)}"
    for failure in facts.failures[:1]:
        yield f"newest failure: {failure_words(failure)}"


def rate_words(rate: float) -> str:
    """Images per second with the digits that mean something."""
    return f"{rate:.2f} images/s" if rate < 10 else f"{rate:,.0f} images/s"


def batches_words(count: int) -> str:
    """So many batches."""
    return "1 batch" if count == 1 else f"{count:,} batches"


def left_words(left: TimeLeft) -> str:
    """The time left with its range, where that has two ends."""
    likely, low, high = (duration(seconds) for seconds in (left.likely, left.low, left.high))
    return likely if low == high else f"{likely} ({low} to {high})"


def actor_words(pool: PoolFacts) -> str:
    """How many actors of a pool are up, and what the others do."""
    if pool.finished:
        return "all done"
    doings = ((pool.loading, "loading"), (pool.compiling, "compiling"))
    words = [f"{pool.up} of {pool.size} up", *(f"{count} {doing}" for count, doing in doings if count)]
    return ", ".join(words)


def share_words(pool: PoolFacts) -> str:
    """The share of the time in device calls, "" where it is not known."""
    return "" if pool.in_calls is None else f"{pool.in_calls:.0%}"


def work_words(pool: PoolFacts) -> str:
    """TFLOP/s of a device in its calls, "" where they are not known."""
    if pool.tflops is None:
        return ""
    return f"{pool.tflops:,.0f}" if pool.tflops >= 100 else f"{pool.tflops:.2g}"


def lost_words(facts: RunFacts) -> str:
    """How many worker processes were lost and why, and what that cost."""
    total = sum(facts.lost.values())
    causes = ", ".join(f"{count} {cause}" for cause, count in facts.lost.items())
    again = f"; {batches_words(facts.batches_again)} made again" if facts.batches_again else ""
    return f"{total} worker{'s' if total > 1 else ''} ({causes}){again}"


def failure_words(failure: RowFailure) -> str:
    """Which row failed, and why."""
    row = "" if failure.manifest_row is None else f"row {failure.manifest_row} "
    return f"{row}({failure.id}) {failure.status}: {failure.message}"
