"""What one step of each model costs on the CPU, beside PyTorch's on as many threads where PyTorch is at hand.

`--graph` adds MindSpore's compiled graphs. All of them time their cases in a process of their own and take turns, so
that a busy moment of the machine meets all.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable

from jobs.benchmarks import child, tables
from jobs.benchmarks.kernel_cases import PARTS, SIZES, Case, cases, question
from manifests.errors import KandinskyBatchError, UsageError

NAME = "kernels"
HELP = "time steps of UNet, prior and MoVQ on the CPU, beside PyTorch's; --sizes full runs the published models"


def add_options(options: argparse._ArgumentGroup) -> None:
    """The options of this sub-command."""
    options.add_argument("--threads", type=int, default=2, metavar="N", help="of each side's numeric libraries")
    options.add_argument("--torch-python", metavar="PYTHON", help="an interpreter with torch and diffusers")
    options.add_argument("--rounds", type=int, default=3, metavar="N", help="how often each case is timed on each side")
    options.add_argument("--sizes", nargs="+", default=["demo", "middle"], choices=list(SIZES), help="of the models")
    options.add_argument("--batches", nargs="+", type=int, default=[1, 4], metavar="N", help="rows of a call")
    options.add_argument("--graph", action="store_true", help="time compiled graphs as well")
    options.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS), help="what is timed")


def run(arguments: argparse.Namespace) -> None:
    """Print one line per case; each is timed on all sides in turn, `--rounds` times. Ratios are to PyTorch.

    Raises:
        UsageError: the other interpreter lacks what PyTorch's side needs, or a number is below 1.
    """
    if min(arguments.threads, arguments.rounds, *arguments.batches) < 1:
        raise UsageError("options --threads, --rounds and --batches: give numbers of 1 or more")
    libraries: dict[str, tuple[str, ...]] = {"MindSpore": (sys.executable, "mindspore")}
    if arguments.graph:
        libraries["graph"] = (sys.executable, "mindspore", "graph")
    if child.has_pytorch(arguments.torch_python):
        libraries["PyTorch"] = (arguments.torch_python, "pytorch")
    sides = [_Side(*side, threads=arguments.threads) for side in libraries.values()]
    print(f"{arguments.threads} threads, milliseconds per call, best of {arguments.rounds} rounds\n")
    ours = [name for name in libraries if name != "PyTorch"]
    columns = [*ours, "PyTorch", *(["ratio"] if ours == ["MindSpore"] else [f"{name} ratio" for name in ours])]
    print(tables.head(("model", "call", "batch", *columns), text=("model", "call")))
    try:
        for case in cases(arguments.sizes, arguments.parts, arguments.batches):
            rounds = [[side.milliseconds(case) for side in sides] for _ in range(arguments.rounds)]
            best = dict(zip(libraries, (min(times) for times in zip(*rounds, strict=True)), strict=True))
            theirs = best.pop("PyTorch", None)
            times = [f"{time:.1f}" for time in best.values()]
            beside = ["–"] * (1 + len(best)) if theirs is None else _beside(theirs, best.values())
            print(tables.row((case.size, case.part, str(case.batch), *times, *beside)), flush=True)
    finally:
        for side in sides:
            side.end()


def _beside(theirs: float, ours: Iterable[float]) -> list[str]:
    return [f"{theirs:.1f}", *(f"{time / theirs:.1f}" for time in ours)]


class _Side:
    """A process that times cases when asked."""

    def __init__(self, python: str, library: str, *more: str, threads: int) -> None:
        environment = {**child.plain_environment(), "OMP_NUM_THREADS": str(threads)}
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by end)
        self._process = subprocess.Popen(
            [python, "-m", f"jobs.benchmarks.kernel_times_{library}", *more],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )

    def milliseconds(self, case: Case) -> float:
        """Time of one call."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(question(case))
            self._process.stdin.flush()
            return float(json.loads(self._process.stdout.readline())) * 1000
        except (BrokenPipeError, ValueError) as error:
            self._process.wait(timeout=60)
            self._stderr.seek(0)
            words = self._stderr.read().strip().splitlines() or ["no message"]
            raise KandinskyBatchError(f"timing {case} failed: {words[-1]}") from error

    def end(self) -> None:
        """Let the process go."""
        self._process.kill()
        self._process.communicate()
        self._stderr.close()
