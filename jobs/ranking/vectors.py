"""All pairs of embeddings whose cosine is above a threshold, by faiss; of many, those that its cells bring together.

Up to EXACT embeddings all pairs are looked at. More of them are put into cells around centres that k-means finds, and
each is compared with all in the PROBED cells nearest to it (infra/adr/0022-near-duplicates.md has what that misses).
Memory holds them once, in float16, with every index that faiss has made for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import UsageError

Places = npt.NDArray[np.int64]
Matrix = npt.NDArray[Any]

#: Embeddings that are compared with all others, and of more the cells that each is compared with.
EXACT, PROBED = 20_000, 4

#: Of a cell's centre, embeddings that it is found from; iterations.
_PER_CENTRE, _ITERATIONS = 40, 5

#: Rows of a search.
_ROWS = 16_384

#: Embeddings in the order of their places, in pieces; may be asked for several times.
Pieces = Callable[[], Iterable[Matrix]]


def near_pairs(pieces: Pieces, count: int, width: int, least: float) -> Iterator[tuple[Places, Places]]:
    """Places of embeddings whose cosine is above `least`; a pair may come twice.

    Args:
        pieces: gives `count` rows of length 1 of so many numbers, the same ones each time.

    Raises:
        UsageError: faiss is not installed.
    """
    index = _index(pieces, count, width)
    for piece in pieces():
        for start in range(0, len(piece), _ROWS):
            index.add(_exact(piece[start : start + _ROWS]))
    first = 0
    for piece in pieces():
        for start in range(0, len(piece), _ROWS):
            rows = _exact(piece[start : start + _ROWS])
            ends, _, found = index.range_search(rows, least)
            asked = np.repeat(np.arange(first, first + len(rows)), np.diff(ends.astype(np.int64)))
            other = asked != found
            yield asked[other], found[other]
            first += len(rows)


def _index(pieces: Pieces, count: int, width: int) -> Any:
    try:
        import faiss
    except ImportError as error:
        raise UsageError(
            "option --duplicates: clip needs faiss, which is not installed here: pip install '.[duplicates]'"
        ) from error
    kind, measure = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    if count <= EXACT:
        return faiss.IndexScalarQuantizer(width, kind, measure)
    cells = int(4 * count**0.5)
    index = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatIP(width), width, cells, kind, measure)
    index.cp.niter, index.cp.max_points_per_centroid = _ITERATIONS, _PER_CENTRE
    index.nprobe = min(PROBED, cells)
    index.train(_sample(pieces, count, min(count, cells * _PER_CENTRE)))
    return index


def _sample(pieces: Pieces, count: int, wanted: int) -> Matrix:
    """Rows from all over, the same each time."""
    chosen = np.sort(np.random.default_rng(0).choice(count, wanted, replace=False))
    rows, first = [], 0
    for piece in pieces():
        last = first + len(piece)
        rows.append(_exact(piece[chosen[(chosen >= first) & (chosen < last)] - first]))
        first = last
    return np.concatenate(rows)


def _exact(rows: Matrix) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(rows, np.float32)
