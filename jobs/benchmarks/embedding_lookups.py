"""Looks embeddings up in a store, in a process of its own whose memory `jobs.benchmarks.embeddings` measures."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

# As a script, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from jobs.benchmarks.embedding_rows import CHECKPOINT, PART_ROWS, part_keys
from manifests.embeddings.keys import Origin
from manifests.embeddings.store import EmbeddingStore


def main(url: str, rows: int, dtype: str, width: int, fragment: int, lookups: int) -> dict[str, Any]:
    """Seconds of the first lookup, and of one of those that follow, for neighbouring rows and for scattered ones."""
    origin = Origin(CHECKPOINT, dtype, width)
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {"together": [], "scattered": []}
    for number in range(lookups):
        for how in times:
            if how == "together":
                part = int(rng.integers(0, -(-rows // PART_ROWS)))
                size = min(PART_ROWS, rows - part * PART_ROWS)
                start = int(rng.integers(0, max(1, size - fragment)))
                keys = part_keys(part, size)[start : start + fragment]
            else:
                keys = _scattered(rng, rows, fragment)
            began = time.perf_counter()
            known = EmbeddingStore(url).get(keys, origin)
            times[how].append(time.perf_counter() - began)
            if not known.found.all():
                raise SystemExit(f"lookup {number} found {known.found.sum()} of {len(keys)} embeddings")
    later = {how: min(values[1:]) for how, values in times.items()}
    return {"first": times["together"][0], **later}


def _scattered(rng: np.random.Generator, rows: int, count: int) -> list[bytes]:
    places = np.sort(rng.integers(0, rows, count))
    keys: list[bytes] = []
    for part in np.unique(places // PART_ROWS).tolist():
        all_keys = part_keys(part, min(PART_ROWS, rows - part * PART_ROWS))
        keys += [all_keys[place] for place in places[places // PART_ROWS == part] % PART_ROWS]
    return keys


if __name__ == "__main__":
    given_url, given_rows, given_dtype, *numbers = sys.argv[1:]
    print(json.dumps(main(given_url, int(given_rows), given_dtype, *map(int, numbers))))
