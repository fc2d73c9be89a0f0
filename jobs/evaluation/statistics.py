"""What is known of the embeddings of one set of images: moments for the Frechet distance, a sample for CMMD; a file.

mu, sigma     mean and covariance of all of them, named as pytorch-fid has them
embeddings    a seeded sample, float32 unit vectors
count         of all of them
encoder       fingerprint of the image encoder
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.evaluation.distances import Exact, Moments, unit
from manifests import storage
from manifests.errors import UsageError, first_line

#: Embeddings that CMMD is computed of, at most; its paper has 30,000 as well.
SAMPLE = 30_000

_NAMES = ("mu", "sigma", "embeddings", "count", "encoder")


@dataclass(frozen=True)
class Statistics:
    """One set of images.

    Attributes:
        mean, covariance: (width,) and (width, width), float64.
        sample: (rows, width), float32 unit vectors.
        count: of images.
        encoder: fingerprint of what has embedded them.
    """

    mean: Exact
    covariance: Exact
    sample: npt.NDArray[np.float32]
    count: int
    encoder: str


def gather(pieces: Iterable[npt.NDArray[Any]], encoder: str) -> Statistics:
    """Take in embeddings that come in pieces (any number, width); memory holds the sample and the sums.

    Raises:
        UsageError: there are none.
    """
    found: Moments | None = None
    rng = np.random.default_rng(0)
    kept, draws = np.zeros((0, 0), np.float32), np.zeros(0)
    for piece in pieces:
        rows = unit(piece)
        if found is None:
            found, kept = Moments(rows.shape[1]), np.zeros((0, rows.shape[1]), np.float32)
        found.add(rows)
        # A sample without knowing how many will come: those with the smallest draws.
        kept, draws = np.concatenate([kept, rows.astype(np.float32)]), np.concatenate([draws, rng.random(len(rows))])
        if len(draws) > 2 * SAMPLE:
            kept, draws = _smallest(kept, draws)
    if found is None or not found.count:
        raise UsageError("there is no image to evaluate")
    kept, _ = _smallest(kept, draws)
    return Statistics(found.mean, found.covariance, kept, found.count, encoder)


def _smallest(kept: npt.NDArray[np.float32], draws: Exact) -> tuple[npt.NDArray[np.float32], Exact]:
    chosen = np.sort(np.argsort(draws, kind="stable")[:SAMPLE])
    return kept[chosen], draws[chosen]


def save(statistics: Statistics, url: str) -> None:
    """Write a file that `load` reads.

    Raises:
        StorageError: it cannot be written.
    """
    sink = io.BytesIO()
    values = (statistics.mean, statistics.covariance, statistics.sample, statistics.count, statistics.encoder)
    np.savez(sink, **dict(zip(_NAMES, map(np.asarray, values), strict=True)))
    storage.write_atomic(url, sink.getvalue())


def load(url: str) -> Statistics:
    """Read a file that `save` has written.

    Raises:
        UsageError: it is not there, or another file.
    """
    try:
        with np.load(io.BytesIO(storage.read_bytes(url)), allow_pickle=False) as file:
            mean, covariance, sample, count, encoder = (file[name] for name in _NAMES)
    except FileNotFoundError:
        raise UsageError(f"{url}: no such file") from None
    except (ValueError, KeyError, OSError) as error:
        raise UsageError(
            f"{url}: no statistics of this program ({first_line(error)}); evaluate.py --save-statistics makes them"
        ) from error
    return Statistics(mean, covariance, sample, int(count), str(encoder))
