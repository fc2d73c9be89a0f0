"""Near embeddings: all pairs above a cosine where there are few, and those that were planted among many."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from jobs.ranking import vectors
from manifests.errors import UsageError

WIDTH = 16


def units(count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, WIDTH))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def found(rows: np.ndarray, least: float) -> set[tuple[int, int]]:
    def pieces() -> Iterator[np.ndarray]:
        yield from np.array_split(rows, 3)

    pairs = vectors.near_pairs(pieces, len(rows), WIDTH, least)
    return {(min(i, j), max(i, j)) for one, other in pairs for i, j in zip(one.tolist(), other.tolist(), strict=True)}


def test_few_are_all_compared_with_all() -> None:
    rows = units(600)
    cosines = rows.astype(np.float32) @ rows.astype(np.float32).T
    meant = set(zip(*np.nonzero(np.triu(cosines > 0.75, 1)), strict=True))
    assert 20 < len(meant) < 2000
    assert found(rows, 0.75) == meant


def test_planted_pairs_among_many_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "EXACT", 1000)
    rows = units(3000)
    near = rows[:200].astype(np.float32) + 0.05 * units(200, 1)
    near = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float16)
    pairs = found(np.concatenate([rows, near]), 0.98)
    assert len(pairs & {(i, 3000 + i) for i in range(200)}) >= 198
    assert found(np.concatenate([rows, near]), 0.98) == pairs


def test_without_faiss_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *given: Any, **more: Any) -> Any:
        if name == "faiss":
            raise ImportError(name)
        return real(name, *given, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UsageError, match=r"needs faiss, which is not installed here: pip install '\.\[duplicates\]'"):
        found(units(3), 0.9)
