"""A way that exists on some devices only is taken where a trial on the device agrees with the plain way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from manifests.errors import DeviceError, UsageError
from workers.device.self_check import Decision, Trial, decide, difference

PLAIN = np.array([[3.0, 4.0], [0.0, 1.0]])


def trial(other: Callable[[], Any], plain: Callable[[], Any] = lambda: PLAIN) -> Trial:
    return Trial("attention", "fused", "unet, heads of 64", plain, other, 0.1)


def without_operator() -> Any:
    raise RuntimeError("no kernel for FlashAttentionScore\nhere")


def test_what_agrees_is_taken_and_the_record_says_by_how_much_it_differs() -> None:
    decision = decide(trial(lambda: PLAIN * 1.01), "auto")
    assert (decision.chosen, decision.fell_back, decision.tolerance, decision.why) == ("fused", False, 0.1, None)
    assert decision.difference == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("other", "apart", "why"),
    [
        (without_operator, None, "it does not run (RuntimeError: no kernel for FlashAttentionScore)"),
        (lambda: PLAIN * 1.2, 0.2, "its result differs by 0.2, more than 0.1"),
        (lambda: PLAIN * np.nan, None, "its result is not finite"),
        (lambda: PLAIN[:1], None, "its result has the shape (1, 2), not (2, 2)"),
    ],
)
def test_auto_falls_back_and_says_why_and_the_other_way_when_asked_for_is_an_error(
    other: Callable[[], Any], apart: float | None, why: str
) -> None:
    decision = decide(trial(other), "auto")
    assert decision == Decision(
        "attention", "unet, heads of 64", "plain", True, None if apart is None else pytest.approx(apart), 0.1, why
    )
    with pytest.raises(UsageError) as caught:
        decide(trial(other), "fused")
    assert str(caught.value) == (
        f"--attention fused fails its check on this device, for unet, heads of 64: {why}; pass --attention auto or "
        "--attention plain"
    )


def test_a_device_that_is_unusable_after_the_trial_is_told_and_not_computed_on() -> None:
    alive = iter([True, False])

    def plain() -> Any:
        if not next(alive):
            raise RuntimeError("device task aborted")
        return PLAIN

    with pytest.raises(DeviceError, match=r"cannot be used any more after --attention fused .* --attention plain"):
        decide(trial(without_operator, plain), "auto")


def test_one_wrong_row_among_many_is_as_far_off_as_if_it_were_alone() -> None:
    many = np.random.default_rng(0).standard_normal((1000, 8))
    wrong = many.copy()
    wrong[17] = 0.0
    assert difference(many, wrong) == pytest.approx(1.0)
    assert difference(many, many) == 0.0
