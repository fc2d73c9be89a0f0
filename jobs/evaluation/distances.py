"""How far two sets of images are from each other, by the embeddings of both.

CMMD: maximum mean discrepancy of unit vectors of CLIP with a Gaussian kernel, times a thousand (Jayasumana et al.,
"Rethinking FID", CVPR 2024; the constants are those of its published code). It assumes no distribution and needs some
thousands of images. Frechet distance: of the normal distributions with the means and covariances of the embeddings, as
FID has it of Inception's; it needs many more images than an embedding has numbers.

Both are computed in float64. Of CMMD that is needed: kernels of unit vectors are within 2 % of 1, and what is left of
their differences is multiplied.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[Any]
Exact = npt.NDArray[np.float64]

#: Of the kernel, and what its mean is multiplied by for people to read.
SIGMA, SCALE = 10.0, 1000.0

#: Rows of a block of the kernel's matrix.
_ROWS = 2048


def cmmd(one: Matrix, other: Matrix) -> float:
    """CMMD of two sets of embeddings, the estimate that is never below zero (its diagonal is counted).

    Args:
        one, other: (rows, width) each, of any length; they are made unit vectors.

    Memory holds both in float64 and one block of kernels.
    """
    one, other = unit(one), unit(other)
    within = _mean_kernel(one, one) + _mean_kernel(other, other)
    return SCALE * (within - 2 * _mean_kernel(one, other))


def _mean_kernel(one: Exact, other: Exact) -> float:
    total = 0.0
    for start in range(0, len(one), _ROWS):
        cosines = one[start : start + _ROWS] @ other.T
        # The squared distance of unit vectors is 2 - 2 cos. What is summed is the kernel less one, which rounds less.
        total += float(np.expm1((cosines - 1) / SIGMA**2).sum())
    return 1 + total / (len(one) * len(other))


def unit(rows: Matrix) -> Exact:
    """The rows with length 1, in float64."""
    exact = np.asarray(rows, np.float64)
    found: Exact = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    return found


def frechet(mean: Exact, covariance: Exact, other_mean: Exact, other_covariance: Exact) -> float:
    """Frechet distance of two normal distributions: |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)).

    Args:
        mean, covariance: (width,) and (width, width).
    """
    # C C' has the eigenvalues of R C' R with R the root of C, which is symmetric: none of them is complex, and small
    # negative ones are rounding.
    values, directions = np.linalg.eigh(covariance)
    root = (directions * np.sqrt(values.clip(0))) @ directions.T
    crossed = np.linalg.eigvalsh(root @ other_covariance @ root)
    step = mean - other_mean
    traces = np.trace(covariance) + np.trace(other_covariance) - 2 * np.sqrt(crossed.clip(0)).sum()
    return float(step @ step + traces)


class Moments:
    """Mean and covariance of embeddings that come in pieces; memory holds the sums.

    Args:
        width: numbers of an embedding.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean: Exact = np.zeros(width)
        self._scatter: Exact = np.zeros((width, width))

    def add(self, rows: Exact) -> None:
        """Take in some rows (any number, width)."""
        if not len(rows):
            return
        mean = rows.mean(axis=0)
        centred, step = rows - mean, mean - self.mean
        count = self.count + len(rows)
        # Around the means, not around zero, where far-off ones would eat the digits (Chan, Golub and LeVeque, 1979).
        self._scatter += centred.T @ centred + np.outer(step, step) * (self.count * len(rows) / count)
        self.mean = self.mean + step * (len(rows) / count)
        self.count = count

    @property
    def covariance(self) -> Exact:
        """Unbiased, as np.cov."""
        return self._scatter / max(1, self.count - 1)


def moments(pieces: Iterable[Exact], width: int) -> Moments:
    """Mean and covariance of all rows."""
    found = Moments(width)
    for piece in pieces:
        found.add(piece)
    return found
