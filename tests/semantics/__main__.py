"""Run the job on the semantic requests with the demo checkpoint, and print what the judge sees.

    python -m tests.semantics [--checkpoint FOLDER] [--keep OUTPUT]

Another checkpoint is one that `python -m infra.demo_checkpoint` has made. Exit code 1: a limit is missed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.semantics import requests
from tests.semantics.measures import LIMITS, made, measure

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Run, measure, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="demo", help="demo, or a folder (default: demo)")
    parser.add_argument("--keep", type=Path, help="folder for the output, which is removed otherwise")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        output = given.keep or Path(folder) / "out"
        command = [sys.executable, str(ROOT / "jobs" / "generate.py"), "--device", "cpu", "--batch-size", "8"]
        settings = ["--manifest", str(requests.write(Path(folder) / "m.parquet")), "--output", str(output)]
        subprocess.run([*command, *settings, "--checkpoint", given.checkpoint], check=True, stdout=subprocess.DEVNULL)
        values = measure(made(output), _round_trip(given.checkpoint))
    print("| measure | at least | measured |\n|---|---|---|")
    for name, value in values.items():
        print(f"| {name} | {LIMITS[name]:g} | {value:.2f} |")
    return 0 if all(value >= LIMITS[name] for name, value in values.items()) else 1


def _round_trip(checkpoint: str) -> dict:
    from workers.device import device

    device.take("cpu")
    from tests.semantics.round_trip import round_trip
    from workers.checkpoints.locations import local_folder

    return round_trip(local_folder(checkpoint, lambda _name, _config: {}))


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
