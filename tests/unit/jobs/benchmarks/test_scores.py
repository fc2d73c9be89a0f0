"""What the benchmark of scores makes of times and embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.benchmarks.scores import captions, overhead, separation, table
from manifests.errors import KandinskyBatchError


def test_the_cost_is_that_of_all_batches_beside_what_makes_the_images() -> None:
    buckets = [
        {"batches": 3, "seconds": {"prior": 1.0, "decoder": 9.0, "scores": 0.5, "encode": 7.0}},
        {"batches": 1, "seconds": {"prior": 2.0, "decoder": 8.0, "scores": 0.1}},
        {"batches": 5, "seconds": {"encode": 1.0}},
    ]
    assert overhead(buckets) == pytest.approx(1.6 / 40)
    with pytest.raises(KandinskyBatchError, match="no batch of the run was scored"):
        overhead(buckets[2:])


def test_images_that_lie_beside_their_captions_are_told_apart_and_others_are_not() -> None:
    texts = np.eye(4) * 3
    images = np.eye(4)[[0, 1, 2, 3, 1]]
    right = separation(images, texts, [0, 1, 2, 3, 1])
    assert (right.own, right.others, right.auc) == (1.0, 0.0, 1.0)
    wrong = separation(images, texts, [1, 2, 3, 0, 2])
    assert wrong.own == 0
    assert wrong.auc < 0.5
    same = separation(np.ones((5, 4)) / 2, texts, [0, 1, 2, 3, 0])
    assert same.auc == 0.5


def test_the_auc_is_the_share_of_pairs_that_are_in_order() -> None:
    rng = np.random.default_rng(0)
    images, texts, own = rng.normal(size=(9, 5)), rng.normal(size=(4, 5)), [0, 1, 2, 3, 0, 1, 2, 3, 0]
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    cosines = images @ (texts / np.linalg.norm(texts, axis=1, keepdims=True)).T
    mine = [cosines[i, k] for i, k in enumerate(own)]
    others = [cosines[i, k] for i in range(9) for k in range(4) if k != own[i]]
    found = separation(images, texts, own)
    assert found.auc == pytest.approx(np.mean([a > b for a in mine for b in others]))
    assert found.own == pytest.approx(np.mean(mine))
    assert found.others == pytest.approx(np.mean(others))
    assert f"| {found.auc:.3f} |" in table(9, 0.0123, found)
    assert "| 1.2% |" in table(9, 0.0123, found)


def test_captions_are_of_one_object_on_one_colour_and_differ() -> None:
    assert captions(2) == ["a cat on a red background", "a dog on a red background"]
    assert len(set(captions(48))) == 48
