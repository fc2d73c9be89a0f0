"""Too many failed rows end a run: more than `--max-failed`, or the first thousand all alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.limits.failed_rows import FIRST, FailureLimit, most_failed, rejected_rows
from manifests.batch import Bucket
from manifests.commit import FailureKind, Receipt
from manifests.config import RunConfig
from manifests.errors import TooManyFailedError
from manifests.planning.plan import plan
from tests.unit import finished_run

TOTAL = 100_000

BUCKET = Bucket(
    task="text2img",
    height=64,
    width=64,
    steps=100,
    guidance_scale=4.0,
    prior_steps=25,
    prior_guidance_scale=4.0,
    strength=None,
    has_negative=False,
)


def failed(count: int, reason: str = "image … does not exist", status: str = "failed_to_load") -> FailureKind:
    return FailureKind(status=status, reason=reason, count=count, example=f"r1: {reason.replace('…', '(a.png)')}")


def receipt(*failures: FailureKind, successes: int = 0, bucket: Bucket | None = BUCKET) -> Receipt:
    by_status = {one.status: one.count for one in failures}
    count = successes + sum(by_status.values())
    return Receipt(
        shard=0,
        batch=0,
        count=count,
        successes=successes,
        failed_by_status=by_status,
        failure_kinds=failures,
        bytes=1,
        bucket=bucket,
    )


def limit(most: str | None = None, *before: FailureKind, total: int = TOTAL) -> FailureLimit:
    return FailureLimit(RunConfig(manifest=("m",), output="out", max_failed=most), total, before)


def words(found: FailureLimit) -> str:
    assert found.too_many
    with pytest.raises(TooManyFailedError) as caught:
        found.check()
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "most"), [("0", 0), ("12", 12), ("5%", 50), ("0.1%", 1), ("0.19%", 1), ("0%", 0), ("100%", 1000)]
)
def test_a_limit_is_a_number_or_a_share_of_all_rows(given: str, most: int) -> None:
    assert most_failed(given, 1000) == most


def test_one_more_than_the_limit_is_too_many_and_the_reasons_are_told() -> None:
    found = limit("5")
    found.add(receipt(failed(3), failed(2, "the decoder died", "failed_to_generate"), successes=1))
    assert not found.too_many
    found.check()
    found.add(receipt(failed(1), successes=3))
    assert words(found) == (
        "6 of 100,000 images have failed, and --max-failed 5 lets no more than 5: 4 failed_to_load, such as r1: image "
        "(a.png) does not exist | 2 failed_to_generate, such as r1: the decoder died. Either mend the cause and start "
        "the same command with --retry-errors, or go on with a higher --max-failed"
    )


def test_what_failed_in_earlier_starts_counts() -> None:
    assert not limit("5", failed(5)).too_many
    assert "6 of 100,000" in words(limit("5", failed(6)))


def test_rows_that_are_tried_again_count_when_they_fail_again() -> None:
    found = limit("0")
    found.add_retried(receipt(successes=2))
    assert not found.too_many
    found.add_retried(receipt(failed(1)))
    assert found.too_many


def test_of_many_reasons_the_commonest_are_told() -> None:
    found = limit("5")
    found.add(receipt(*(failed(n, f"reason {'x' * n}") for n in range(1, 6))))
    assert words(found).count("failed_to_load") == 3
    assert "| and 2 more kinds." in words(found)


def test_the_first_thousand_that_fail_alike_are_too_many() -> None:
    found = limit()
    found.add(receipt(failed(FIRST - 1)))
    assert not found.too_many
    found.add(receipt(failed(1)))
    assert words(found) == (
        "the first 1,000 images of this start have all failed in one way: failed_to_load, such as r1: image (a.png) "
        "does not exist. Either mend the cause and start the same command with --retry-errors, or go on all the same "
        "with --max-failed 100%"
    )
    found.add(receipt(successes=1))
    assert found.too_many, "what was in flight meanwhile changes nothing"


@pytest.mark.parametrize(
    "other",
    [
        receipt(successes=1),
        receipt(failed(1, "image … is a folder")),
        receipt(failed(1, status="failed_to_encode")),
    ],
)
def test_one_row_that_ends_otherwise_is_enough_to_go_on(other: Receipt) -> None:
    found = limit()
    found.add(receipt(failed(FIRST - 1)))
    found.add(other)
    found.add(receipt(failed(10 * FIRST)))
    assert not found.too_many


def test_a_person_may_tell_it_to_go_on() -> None:
    found = limit("100%")
    found.add(receipt(failed(TOTAL)))
    assert not found.too_many


def test_a_limit_of_ones_own_does_not_let_a_thousand_fail_alike() -> None:
    found = limit("50%")
    found.add(receipt(failed(FIRST)))
    assert "have all failed in one way" in words(found)


def test_earlier_failures_and_rows_tried_again_say_nothing_of_this_start() -> None:
    found = limit(None, failed(10 * FIRST))
    found.add_retried(receipt(failed(10 * FIRST)))
    assert not found.too_many
    found.add(receipt(failed(FIRST)))
    assert found.too_many, "and another way to fail in an earlier start is none of this one"


def test_the_rejected_rows_of_a_window_come_first_and_count_once() -> None:
    rejected = failed(2 * FIRST, "task: is no task", "failed_to_validate")
    found = limit(str(2 * FIRST), rejected)
    found.add(receipt(rejected, bucket=None))
    assert not found.too_many
    found.add(receipt(failed(1)))
    assert found.too_many


def rows(count: int, *more: dict[str, Any]) -> list[dict[str, Any]]:
    return [*({"id": f"r{i}", "task": "paint", "prompt": "x"} for i in range(count)), *more]


def test_a_plan_without_a_row_that_can_be_made_is_told_before_the_start(tmp_path: Path) -> None:
    config = finished_run.make_config(tmp_path, rows(FIRST))
    planned = plan(config)
    before = rejected_rows(planned, range(len(planned.shards)))
    said = words(FailureLimit(config, FIRST, before))
    assert (
        "the first 1,000 images of this start have all failed in one way: failed_to_validate, such as row 0: " in said
    )
    assert "'paint' is not a task" in said
    assert "Either correct the manifest, or go on" in said
    told = config.model_copy(update={"max_failed": "100%"})
    assert not FailureLimit(told, FIRST, before).too_many


@pytest.mark.parametrize(
    ("count", "more"),
    [
        (FIRST, {"id": "good", "task": "text2img", "prompt": "x"}),
        (FIRST, {"id": "other", "task": "text2img", "prompt": "x", "width": 65}),
        (FIRST - 2, {"id": "other", "task": "paint", "prompt": "x"}),
    ],
)
def test_a_plan_with_a_good_row_or_two_reasons_or_few_rows_is_begun(
    count: int, more: dict[str, Any], tmp_path: Path
) -> None:
    config = finished_run.make_config(tmp_path, rows(count, more))
    planned = plan(config)
    before = rejected_rows(planned, range(len(planned.shards)))
    assert not FailureLimit(config, planned.requests, before).too_many
    strict = config.model_copy(update={"max_failed": str(count - 1)})
    assert "failed_to_validate, such as row 0: task: 'paint'" in words(FailureLimit(strict, planned.requests, before))
