"""`jobs/plan.py` with the device pools of `quick_generate.py`, for what it times with `--probe`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import tests.faults.quick_generate  # noqa: F401
from jobs.cli import run_script
from jobs.plan import main

if __name__ == "__main__":
    run_script(main)
