"""Near hashes: every pair that comparing all with all finds, and no other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from jobs.ranking.hashes import BITS, MOST, bits_set, near_pairs

rng = np.random.default_rng(7)


def found(hashes: np.ndarray, most: int) -> set[tuple[int, ...]]:
    pairs = (np.sort(np.stack(pair, 1), axis=1).tolist() for pair in near_pairs(hashes, most))
    return set(map(tuple, itertools.chain.from_iterable(pairs)))


def all_with_all(hashes: np.ndarray, most: int) -> set[tuple[int, ...]]:
    words = hashes.tolist()
    return {
        (i, j) for i, j in itertools.combinations(range(len(words)), 2) if (words[i] ^ words[j]).bit_count() <= most
    }


@pytest.mark.parametrize("most", range(MOST + 1))
def test_all_near_pairs_are_found_and_no_other(most: int) -> None:
    hashes = rng.integers(0, 2**64, 120, dtype=np.uint64)
    flipped = hashes.copy()
    for i in range(len(flipped)):
        for bit in rng.choice(BITS, i % (most + 3), replace=False).tolist():
            flipped[i] ^= np.uint64(1 << bit)
    both = np.concatenate([hashes, flipped])
    meant = all_with_all(both, most)
    assert len(meant) >= 120 * (most + 1) // (most + 3) - 3
    assert len(meant) < 200
    assert found(both, most) == meant


def test_hashes_that_share_most_of_their_bits_are_all_compared() -> None:
    hashes = np.unique(rng.integers(0, 2**64, 400, dtype=np.uint64) & np.uint64(0x0F000F0000000003))
    assert len(all_with_all(hashes, 2)) > 1000
    assert found(hashes, 2) == all_with_all(hashes, 2)


def test_none_and_one_have_no_pairs() -> None:
    assert found(np.zeros(0, np.uint64), 4) == found(np.zeros(1, np.uint64), 4) == set()


def test_bits_are_counted() -> None:
    words = rng.integers(0, 2**64, 1000, dtype=np.uint64)
    words[:2] = 0, 2**64 - 1
    assert bits_set(words).tolist() == [word.bit_count() for word in words.tolist()]
