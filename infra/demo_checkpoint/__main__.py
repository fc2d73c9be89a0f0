"""Train the demo checkpoint: `python -m infra.demo_checkpoint FOLDER [STAGE ...]`; see README.md."""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

STAGES = ("movq", "clip", "prior", "unet")


def launch(stage: str, folder: Path, processes: int) -> None:
    """Run one stage in processes of one thread each."""
    with tempfile.TemporaryDirectory() as meeting:
        common = os.environ | {"WORLD_SIZE": str(processes), "OMP_NUM_THREADS": "1", "MEETING": meeting}
        command = [sys.executable, "-m", "infra.demo_checkpoint", str(folder), stage, "--inside"]
        running = [subprocess.Popen(command, env=common | {"RANK": str(i)}) for i in range(processes)]
        codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit(f"stage {stage} failed: exit codes {codes}")


def main() -> None:
    """Run the named stages, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="checkpoints and results; training goes on from what lies there")
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], default=STAGES)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for stage in arguments.stages:
        if arguments.inside:
            importlib.import_module(f"infra.demo_checkpoint.{stage}").train(arguments.folder)
        elif not (arguments.folder / f"{stage}.result").exists():
            launch(stage, arguments.folder, arguments.processes)


if __name__ == "__main__":
    main()
