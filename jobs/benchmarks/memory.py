"""What a run on CPUs holds in memory at the published size: with both pools beside each other, and in phases.

The weights are random ones in float16, some 10 GB on disk; every process holds them in float32. Counted are the job and
all processes that it starts, Ray's too, memory that they share once.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jobs.benchmarks import child, made_up_checkpoint, tables
from jobs.benchmarks.peer_requests import TASKS, write_manifest
from manifests.errors import KandinskyBatchError, UsageError

NAME = "memory"
HELP = "the most memory that a run on CPUs holds at the published size, in pools and in phases"

#: Seconds between two looks at the memory.
EVERY_S = 0.25


def add_options(options: argparse._ArgumentGroup) -> None:
    """The options of this sub-command."""
    options.add_argument(
        "--size", default="full", choices=list(made_up_checkpoint.SIZES), help="of the models; 'random' is a tiny one"
    )
    options.add_argument("--schedules", nargs="+", default=["pools", "phases"], metavar="NAME", help="as generate.py's")
    options.add_argument(
        "--tasks", nargs="+", default=["text2img", "inpaint"], choices=TASKS, help="of the last run; the first has one"
    )
    options.add_argument("--edge", type=int, default=256, metavar="PIXELS", help="of the images")
    options.add_argument("--steps", type=int, default=2, metavar="N", help="of the decoder")


@dataclass(frozen=True)
class Run:
    """One run of the job.

    Attributes:
        peak_bytes: the most that all its processes held.
        seconds: from its start to its end.
        lost: processes that it lost, for want of memory or anything else.
    """

    peak_bytes: int
    seconds: float
    lost: int


def run(arguments: argparse.Namespace) -> None:
    """Print one line per schedule and set of tasks: the first task alone, then with each one that is added to it.

    Raises:
        UsageError: a number does not fit.
        KandinskyBatchError: a run failed.
    """
    if arguments.steps < 1 or arguments.edge < 64 or arguments.edge % 64:
        raise UsageError("options: give --steps of 1 or more, and an --edge that 64 divides")
    print(f"the {arguments.size} size, {arguments.edge} px, {arguments.steps} steps, float32\n")
    print(tables.head(("tasks", "schedule", "peak GiB", "seconds", "lost workers"), text=("tasks", "schedule")))
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        checkpoint = Path(folder) / "checkpoint"
        made_up_checkpoint.write(arguments.size, checkpoint)
        tasks: list[str] = []
        manifests: list[Path] = []
        for task in arguments.tasks:
            tasks.append(task)
            manifests.append(Path(folder) / f"{task}.parquet")
            write_manifest(manifests[-1], task, 1, arguments.edge, arguments.steps)
            for schedule in arguments.schedules:
                with tempfile.TemporaryDirectory(dir=folder) as output:
                    made = _run(checkpoint, manifests, Path(output), schedule)
                peak = f"{made.peak_bytes / 2**30:.1f}"
                cells = (", ".join(tasks), schedule, peak, f"{made.seconds:.0f}", str(made.lost))
                print(tables.row(cells), flush=True)


def _run(checkpoint: Path, manifests: Iterable[Path], output: Path, schedule: str) -> Run:
    places = ["--manifest", *map(str, manifests), "--output", str(output), "--checkpoint", str(checkpoint)]
    options = ["--device", "cpu", "--batch-size", "1", "--schedule", schedule]
    began, peak = time.monotonic(), 0
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            child.script("generate.py", *places, *options), env=child.plain_environment(), stdout=said, stderr=said
        )
        while process.poll() is None:
            peak = max(peak, held(process.pid))
            time.sleep(EVERY_S)
        if process.returncode:
            said.seek(0)
            raise KandinskyBatchError(f"the run in {schedule} ended with {process.returncode}:\n{said.read()}")
    seconds = time.monotonic() - began
    record = json.loads((output / "_run" / "run.json").read_text())
    return Run(peak, seconds, len(record["lost_workers"]))


def held(root: int, proc: Path = Path("/proc")) -> int:
    """Bytes that a process and all that it has started hold; what several share, each holds its part of.

    Args:
        root: number of the process.
        proc: where Linux tells of processes.
    """
    children: dict[int, list[int]] = {}
    for status in proc.glob("[0-9]*/status"):
        if parent := _number(status, "PPid"):
            children.setdefault(parent, []).append(int(status.parent.name))
    found, ahead = 0, [root]
    while ahead:
        process = ahead.pop()
        ahead += children.get(process, [])
        found += _number(proc / str(process) / "smaps_rollup", "Pss") << 10
    return found


def _number(file: Path, name: str) -> int:
    """One number of a file about a process; 0 where the process is gone meanwhile."""
    try:
        match = re.search(rf"^{name}:\s+(\d+)", file.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(match[1]) if match else 0
