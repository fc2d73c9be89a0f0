"""Distances of made-up embeddings by the public implementations, for `tests/data/distances.json`.

    git clone https://github.com/sayakpaul/cmmd-pytorch && git -C cmmd-pytorch checkout 49fb717
    pip install pytorch-fid==0.3.0
    python tests/goldens/distances.py cmmd-pytorch

Runs in the environment of the goldens (make.py says how that is made). CMMD is computed by cmmd-pytorch's
`distance.mmd`, which is the authors' code (google-research/cmmd) in PyTorch, of unit vectors as its `embedding.py`
makes them, once as that code has it (float32) and once in float64. The Frechet distance is pytorch-fid's
`calculate_frechet_distance`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_fid
import torch
from pytorch_fid.fid_score import calculate_frechet_distance

OUT = Path(__file__).resolve().parents[1] / "data" / "distances.json"

#: Rows of both sets, width, how far their means are apart, and the spread of the second one.
CASES = ((50, 60, 8, 0.3, 1.0), (400, 300, 32, 0.1, 1.5), (200, 500, 64, 1.0, 0.5), (20, 30, 48, 0.5, 1.0))


def embeddings(case: int) -> tuple[Any, Any]:
    """Two sets in float32, as tests/unit/jobs/evaluation/test_distances.py makes them."""
    rows, other_rows, width, shift, spread = CASES[case]
    rng = np.random.default_rng(case)
    one = rng.standard_normal((rows, width)).astype(np.float32)
    other = (spread * rng.standard_normal((other_rows, width)) + shift).astype(np.float32)
    return one, other


def main(folder: str) -> int:
    """Compute and write."""
    sys.path.insert(0, folder)
    import distance

    cases = []
    for number, case in enumerate(CASES):
        one, other = embeddings(number)
        units = [rows / np.linalg.norm(rows, axis=-1, keepdims=True) for rows in (one, other)]
        exact = [rows.astype(np.float64) for rows in (one, other)]
        exact = [rows / np.linalg.norm(rows, axis=-1, keepdims=True) for rows in exact]
        moments = [part for rows in (one, other) for part in (rows.mean(0, np.float64), np.cov(rows, rowvar=False))]
        cases.append(
            {
                "case": case,
                "cmmd_float32": float(distance.mmd(*units)),
                "cmmd_float64": float(distance.mmd(*exact)),
                "frechet": float(calculate_frechet_distance(*moments)),
            }
        )
    by = f"cmmd-pytorch 49fb717, pytorch-fid {pytorch_fid.__version__}, torch {torch.__version__}"
    OUT.write_text(json.dumps({"by": by, "cases": cases}, indent=1) + "\n")
    print(f"{len(cases)} cases in {OUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
