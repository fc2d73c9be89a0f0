"""Train the demo checkpoint, stage by stage: `python -m infra.demo_checkpoint FOLDER`; see README.md."""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from infra.demo_checkpoint.configs import BUDGETS

#: Kept by the C library and in large pages: what is freed and asked for anew each step is otherwise two fifths of the
#: time, in page faults.
MALLOC = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"
#: In the order in which they need each other's results; `movq` and `clip` may run side by side.
STAGES = ("movq", "clip", "prior", "unet", "export")


def launch(stage: str, folder: Path, budget: str, processes: int) -> None:
    """Run one stage in processes of one thread each, in the way that `main` then meets."""
    with tempfile.TemporaryDirectory() as meeting:
        common = os.environ | {"WORLD_SIZE": str(processes), "OMP_NUM_THREADS": "1", "MEETING": meeting}
        common["GLIBC_TUNABLES"] = MALLOC
        command = [sys.executable, "-m", "infra.demo_checkpoint", str(folder), stage, "--budget", budget, "--inside"]
        running = [subprocess.Popen(command, env=common | {"RANK": str(i)}) for i in range(processes)]
        codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit(f"stage {stage} failed: exit codes {codes}")


def main() -> None:
    """Run the named stages, or all that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="checkpoints and results; training goes on from what lies there")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"{', '.join(STAGES)} (default: all)")
    parser.add_argument("--budget", choices=list(BUDGETS), default="full", help="smoke: a handful of steps each")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.stages) - set(STAGES):
        parser.error(f"no such stage: {', '.join(sorted(unknown))}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for stage in arguments.stages or STAGES:
        if arguments.inside:
            module = importlib.import_module(f"infra.demo_checkpoint.{stage}")
            module.train(arguments.folder, BUDGETS[arguments.budget])
        elif not (arguments.folder / f"{stage}.result").exists():
            launch(stage, arguments.folder, arguments.budget, 1 if stage == "export" else arguments.processes)


if __name__ == "__main__":
    main()
