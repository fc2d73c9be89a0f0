"""Finds planted near duplicates, in a process of its own whose memory `jobs.benchmarks.duplicates` measures."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# As a script, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from jobs.benchmarks.duplicates import PER_COPY
from jobs.ranking import hashes, vectors
from jobs.ranking.groups import Groups
from jobs.ranking.rules import Rules, parse

#: Numbers of an embedding, subjects that pictures are of, rows of a piece.
_WIDTH, _SUBJECTS, _PIECE = 768, 2000, 16_384

#: How far a copy is from its original, in lengths of the original: a cosine of 0.97.
_NOISE = 0.25


def main(words: str, images: int) -> dict[str, float]:
    """Seconds of the search, and the share of the copies that it has found."""
    rules, rng = parse(words, None, None), np.random.default_rng(0)
    originals = rng.choice(images - images // PER_COPY, images // PER_COPY, replace=False)
    groups = Groups(images)
    data = _hashes(images, originals, rules, rng) if rules.bits is not None else _embeddings(images, originals, rng)
    began = time.perf_counter()
    if rules.bits is not None:
        pairs = hashes.near_pairs(data, rules.bits)
    else:
        pairs = vectors.near_pairs(lambda: _pieces(data), images, _WIDTH, rules.cosine or 0.0)
    for one, other in pairs:
        groups.join(one, other)
    smallest = groups.smallest()
    seconds = time.perf_counter() - began
    copies = np.arange(images - len(originals), images)
    return {"seconds": seconds, "found": float((smallest[copies] == smallest[originals]).mean())}


def _hashes(
    images: int, originals: npt.NDArray[np.int64], rules: Rules, rng: np.random.Generator
) -> npt.NDArray[np.uint64]:
    words = rng.integers(0, 2**64, images, dtype=np.uint64)
    flipped = np.zeros(len(originals), np.uint64)
    for _ in range(rules.bits or 0):
        flipped |= np.uint64(1) << rng.integers(0, hashes.BITS, len(originals), dtype=np.uint64)
    words[images - len(originals) :] = words[originals] ^ flipped
    return words


def _embeddings(images: int, originals: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[Any]:
    """Pictures of some subjects, as different from each other as from what their subject is."""
    subjects = rng.standard_normal((_SUBJECTS, _WIDTH), np.float32)
    rows = np.empty((images, _WIDTH), np.float16)
    for start in range(0, images, _PIECE):
        count = min(_PIECE, images - start)
        rows[start : start + count] = _unit(
            subjects[rng.integers(0, _SUBJECTS, count)] + rng.standard_normal((count, _WIDTH), np.float32)
        )
    noise = _unit(rng.standard_normal((len(originals), _WIDTH), np.float32))
    rows[images - len(originals) :] = _unit(rows[originals].astype(np.float32) + _NOISE * noise)
    return rows


def _unit(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found


def _pieces(rows: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    for start in range(0, len(rows), _PIECE):
        yield rows[start : start + _PIECE]


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
