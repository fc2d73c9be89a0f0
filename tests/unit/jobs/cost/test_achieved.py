"""TFLOP/s of a run by stage: images by their price, seconds as measured, and a peak only where one is known."""

from __future__ import annotations

import pytest

from jobs.cost.achieved import Achieved
from jobs.cost.price import CHIPS, models_of
from manifests.batch import Bucket
from manifests.call_limit import CallLimit
from manifests.commit import Receipt

BUCKET = Bucket(
    task="text2img",
    height=64,
    width=64,
    steps=2,
    guidance_scale=4.0,
    prior_steps=2,
    prior_guidance_scale=4.0,
    strength=None,
    has_negative=False,
)
MODELS = models_of("random", inpaint=False)
CHIP = "Ascend910B2"
LIMIT = CallLimit(8, 4 * 64 * 64)


def receipt(count: int = 4, embedded: int = 4, successes: int = 4) -> Receipt:
    failed = {"failed_to_generate": count - successes} if successes < count else {}
    seconds = {"prior": 0.5, "decoder": 2.0}
    return Receipt(
        shard=0,
        batch=0,
        count=count,
        successes=successes,
        failed_by_status=failed,
        bytes=1,
        bucket=BUCKET,
        seconds=seconds,
        embedded=embedded,
    )


def image(stage: str) -> float:
    assert MODELS is not None
    return float(getattr(MODELS.image(BUCKET), stage)) / 1e12


def test_images_by_seconds() -> None:
    done = Achieved(MODELS)
    for _ in range(3):
        done.add(receipt(), LIMIT)
    found = done.rates([CHIP, CHIP])
    assert found["decoder"].tflops == pytest.approx(4 * image("decoder") / 2.0, abs=1e-6)
    assert found["decoder"].seconds == 6.0
    assert found["prior"].tflops == pytest.approx(4 * image("prior") / 0.5, abs=1e-6)
    assert found["prior"].of_peak == pytest.approx(4 * image("prior") / 0.5 / CHIPS[CHIP].peak, abs=1e-4)


def test_known_embeddings_and_copies_are_no_work() -> None:
    done = Achieved(MODELS)
    done.add(receipt(count=9, embedded=0, successes=9), LIMIT)
    found = done.rates([None])
    assert set(found) == {"decoder"}
    assert found["decoder"].tflop == pytest.approx(4 * image("decoder"), abs=1e-6)


def test_a_phase_of_the_prior_counts_as_the_prior() -> None:
    done = Achieved(MODELS)
    done.add_prior(BUCKET, 8, 1.0)
    assert done.rates([None])["prior"].tflop == pytest.approx(8 * image("prior"), abs=1e-6)


@pytest.mark.parametrize("chips", [["Ascend999"], [None], [CHIP, "Ascend910B3"], []])
def test_no_peak_is_guessed(chips: list[str | None]) -> None:
    done = Achieved(MODELS)
    done.add(receipt(), LIMIT)
    assert done.rates(chips)["decoder"].of_peak is None


def test_without_configs_nothing_is_said() -> None:
    done = Achieved(None)
    done.add(receipt(), LIMIT)
    assert done.rates([CHIP]) == {}
