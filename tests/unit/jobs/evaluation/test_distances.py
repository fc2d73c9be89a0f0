"""Distances are those of the public implementations (numbers of tests/goldens/distances.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.linalg import sqrtm

from jobs.evaluation import distances
from jobs.evaluation.distances import Moments, cmmd, frechet, moments

STORED = json.loads((Path(__file__).resolve().parents[3] / "data" / "distances.json").read_text())["cases"]


def embeddings(case: int) -> tuple[Any, Any]:
    """As tests/goldens/distances.py makes them."""
    rows, other_rows, width, shift, spread = STORED[case]["case"]
    rng = np.random.default_rng(case)
    one = rng.standard_normal((rows, width)).astype(np.float32)
    return one, (spread * rng.standard_normal((other_rows, width)) + shift).astype(np.float32)


def of(rows: np.ndarray, pieces: int = 3) -> Moments:
    return moments(np.array_split(rows.astype(np.float64), pieces), rows.shape[1])


@pytest.mark.parametrize("case", range(len(STORED)))
def test_they_are_those_of_public_implementations(case: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "_ROWS", 64)
    one, other = embeddings(case)
    assert cmmd(one, other) == pytest.approx(STORED[case]["cmmd_float64"], abs=1e-9)
    assert cmmd(one, other) == pytest.approx(STORED[case]["cmmd_float32"], abs=1e-3)
    mine, theirs = of(one), of(other)
    found = frechet(mine.mean, mine.covariance, theirs.mean, theirs.covariance)
    # With fewer rows than numbers a covariance has no inverse, and the reference's root of it rounds.
    assert found == pytest.approx(STORED[case]["frechet"], rel=1e-6 if len(one) < one.shape[1] else 1e-10)


def test_the_frechet_distance_is_its_formula_with_scipys_root() -> None:
    one, other = (of(rows) for rows in embeddings(1))
    root = sqrtm(one.covariance @ other.covariance).real
    step = one.mean - other.mean
    meant = step @ step + np.trace(one.covariance + other.covariance - 2 * root)
    assert frechet(one.mean, one.covariance, other.mean, other.covariance) == pytest.approx(meant, rel=1e-9)


def test_moments_of_pieces_are_those_of_all_even_far_from_zero() -> None:
    rows = np.random.default_rng(0).standard_normal((500, 6)) + 1e6
    for pieces in (1, 7, 500):
        found = of(rows, pieces)
        np.testing.assert_allclose(found.mean, rows.mean(0), rtol=1e-12)
        np.testing.assert_allclose(found.covariance, np.cov(rows, rowvar=False), atol=1e-6)
