"""What the driver gathers: counts by task, pools and their share of the time in calls, shards, newest failures."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.monitoring.facts import INVALID, EngineState, PoolState
from jobs.monitoring.tracker import NEWEST, Tracker
from manifests.batch import Bucket
from manifests.commit import Receipt, RowFailure
from tests.unit.jobs.monitoring.clocks import Clock


def bucket(task: str) -> Bucket:
    return Bucket(
        task=task,
        height=64,
        width=64,
        steps=2,
        guidance_scale=4.0,
        prior_steps=2,
        prior_guidance_scale=4.0,
        strength=None,
        has_negative=False,
    )


def receipt(task: str | None, made: int, failed: int = 0, batch: int = 0) -> Receipt:
    lost = [RowFailure(manifest_row=batch, id=f"r{batch}", status="failed_to_load", message="gone")] * bool(failed)
    return Receipt(
        shard=0,
        batch=batch,
        count=made + failed,
        successes=made,
        failed_by_status={"failed_to_load": failed} if failed else {},
        bytes=1,
        bucket=None if task is None else bucket(task),
        failures=tuple(lost),
    )


def engine(*pools: PoolState) -> EngineState:
    return EngineState(pools)


def pool(name: str = "decoder", **known: Any) -> PoolState:
    given = {"size": 2, "up": 2, "loading": 0, "compiling": 0, "waiting": 3, "call_seconds": 0.0, **known}
    return PoolState(name=name, **given)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tracker(clock: Clock) -> Tracker:
    return Tracker(clock)


def test_images_are_counted_by_task_and_rejected_rows_for_themselves(tracker: Tracker) -> None:
    tracker.start({"inpaint": (10, 4), "text2img": (20, 0), INVALID: (2, 0)})
    tracker.received(receipt("inpaint", 3, 1))
    tracker.received(receipt("text2img", 4))
    tracker.received(receipt(None, 0, 2))
    facts = tracker.facts()
    counts = [(c.name, c.done, c.failed, c.total) for c in facts.counts]
    assert counts == [("inpaint", 8, 1, 10), ("text2img", 4, 0, 20), (INVALID, 2, 2, 2)]
    assert (facts.done, facts.failed, facts.total) == (14, 3, 32)


def test_what_was_an_estimate_is_whole_in_the_end(tracker: Tracker) -> None:
    tracker.start({"text2img": (20, 13)})
    tracker.received(receipt("text2img", 4))
    tracker.finish()
    assert tracker.facts().done == 20
    assert tracker.facts().left is None


def test_the_newest_failures_come_first_and_old_ones_go(tracker: Tracker) -> None:
    tracker.start({"text2img": (200, 0)})
    for batch in range(20):
        tracker.received(receipt("text2img", 3, 1, batch))
    assert [failure.id for failure in tracker.facts().failures] == [f"r{19 - i}" for i in range(NEWEST)]


def test_the_share_of_the_time_in_calls_is_of_the_actors_that_are_up(tracker: Tracker, clock: Clock) -> None:
    for second in range(31):
        tracker.engine(engine(pool(up=2 if second < 10 else 4, call_seconds=1.5 * second)))
        if second < 10:
            assert tracker.facts().pools[0].in_calls is None
        clock.now += 1
    # 30 s, of which an actor pair and then four were up: 45 of about 100 seconds.
    assert tracker.facts().pools[0].in_calls == pytest.approx(45 / 102, rel=0.02)


def test_the_share_begins_anew_with_its_counter_and_ends_with_the_pool(tracker: Tracker, clock: Clock) -> None:
    for second in range(60):
        tracker.engine(engine(pool(up=1, call_seconds=float(second))))
        clock.now += 1
    assert tracker.facts().pools[0].in_calls == 1.0
    tracker.engine(engine(pool(up=1, call_seconds=0.0)))
    assert tracker.facts().pools[0].in_calls is None
    tracker.engine(engine(pool(up=0, finished=True)))
    assert tracker.facts().pools[0].finished


def test_what_pools_load_and_compile_is_the_phases_detail_until_the_next_one(tracker: Tracker) -> None:
    assert tracker.phase("starting the pools")
    assert not tracker.phase("starting the pools")
    tracker.engine(engine(pool("prior", loading=1), pool(loading=2, compiling=1)))
    assert tracker.facts().detail == "3 loading, 1 compiling"
    tracker.phase("making images")
    assert tracker.facts().detail == ""


def test_a_shard_counts_as_sealed_once(tracker: Tracker) -> None:
    tracker.plan_shards(5, frozenset({0, 1}))
    for shard in (1, 2, 2):
        tracker.sealed(shard)
    assert (tracker.facts().sealed, tracker.facts().shards) == (3, 5)


def test_lost_workers_and_batches_made_again_are_counted(tracker: Tracker) -> None:
    tracker.engine(EngineState((), {"out of memory": 2}, 1))
    assert (tracker.facts().lost, tracker.facts().batches_again) == ({"out of memory": 2}, 1)


def test_what_devices_achieve_is_kept_until_it_is_said_again(tracker: Tracker) -> None:
    tracker.engine(engine(pool("prior"), pool()))
    assert [one.tflops for one in tracker.facts().pools] == [None, None]
    tracker.achieved({"decoder": 80.0})
    tracker.achieved({"decoder": 81.5, "prior": 40.0})
    assert [one.tflops for one in tracker.facts().pools] == [40.0, 81.5]
