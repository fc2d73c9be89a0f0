"""All pairs of 64-bit hashes that differ in few bits: exact, in memory that grows with the hashes alone.

Hashes are cut into pieces. Two that differ in at most r bits agree on all pieces but r, so sorting by every choice of
the other pieces brings each such pair together (multi-index hashing: Norouzi, Punjani and Fleet, 2012). Why no index
library does it: infra/adr/0022-near-duplicates.md.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

#: Bits of a hash, and how many two near ones may differ in: beyond, pictures are not near any more, and the search is.
BITS, MOST = 64, 10

#: How many pieces more than may differ are tried out: more of them are more rounds with fewer candidates in each.
_MORE = range(1, 6)

#: What sorting one hash costs, in comparisons of two; measured.
_SORTING = 8.0

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


def near_pairs(hashes: Hashes, most: int) -> Iterator[tuple[Places, Places]]:
    """Places of hashes that differ in at most so many bits; a pair may come more than once.

    Args:
        hashes: of any order; equal ones cost least when each is given once.
        most: from 0 to MOST.
    """
    pieces = _pieces(len(hashes), most)
    edges = np.linspace(0, BITS, pieces + 1).round().astype(int).tolist()
    masks = [(1 << last) - (1 << first) for first, last in itertools.pairwise(edges)]
    for chosen in itertools.combinations(masks, pieces - most):
        yield from _near_with_equal(hashes, np.uint64(sum(chosen)), most)


def _pieces(count: int, most: int) -> int:
    """The number of pieces that costs least for hashes of evenly spread bits."""

    def cost(pieces: int) -> float:
        candidates = count / 2 / 2.0 ** (BITS * (pieces - most) / pieces)
        return math.comb(pieces, most) * (_SORTING + candidates)

    return min((most + more for more in _MORE), key=cost)


def _near_with_equal(hashes: Hashes, mask: np.uint64, most: int) -> Iterator[tuple[Places, Places]]:
    """Near pairs of those that agree in the bits of a mask: each with the next as sorted, then the next but one…"""
    order = np.argsort(hashes & mask)
    ordered = hashes[order]
    keys = ordered & mask
    first, step = np.arange(len(order) - 1), 1
    while len(first):
        first = first[first + step < len(order)]
        first = first[keys[first] == keys[first + step]]
        near = first[bits_set(ordered[first] ^ ordered[first + step]) <= most]
        if len(near):
            yield order[near], order[near + step]
        step += 1


def bits_set(words: Hashes) -> npt.NDArray[np.uint64]:
    """How many bits of each word are set; `np.bitwise_count` of NumPy 2."""
    pairs = words - ((words >> np.uint64(1)) & np.uint64(0x5555555555555555))
    fours = (pairs & np.uint64(0x3333333333333333)) + ((pairs >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bytes_ = (fours + (fours >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    counts: npt.NDArray[np.uint64] = (bytes_ * np.uint64(0x0101010101010101)) >> np.uint64(56)
    return counts
