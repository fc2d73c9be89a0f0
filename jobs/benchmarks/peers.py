"""This job beside what people would use instead: images a second at equal settings and weights, on this machine's CPU.

Each side makes two manifests, a short and a long one, by a command in a process of its own. What the long one takes
more is the rate; what remains of the short one's time is the start: interpreter, imports, models, Ray. Sides that make
one image after the other (plain Ray Data but for text-to-image) reach their rate at once, so theirs are shorter.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.benchmarks import child, made_up_checkpoint, tables
from jobs.benchmarks.peer_requests import MIXED, TASKS, write_manifest
from manifests.errors import KandinskyBatchError, UsageError

NAME = "peers"
HELP = "images a second beside the documents' loop, plain Ray Data and PyTorch diffusers, by task and mixed"
OURS = "this job"

#: Other sides by their option, and as the table names them.
BESIDE = {
    "documents": "documents' loop",
    "ray-data": "plain Ray Data",
    "pytorch-loop": "PyTorch loop",
    "pytorch-batches": "PyTorch in batches of {batch}",
}

#: Sides that make one image after the other are given one of so many requests.
LOOPS_PART = 4

#: Sizes of models: what the demo has, and one where arithmetic outweighs the Python between the operators.
SIZES = ("demo", "middle")


def add_options(options: argparse._ArgumentGroup) -> None:
    """The options of this sub-command."""
    options.add_argument("--torch-python", metavar="PYTHON", help="an interpreter with torch and diffusers")
    options.add_argument(
        "--requests",
        type=int,
        nargs=2,
        default=[8, 40],
        metavar="N",
        help="of both manifests; loops make a quarter of them",
    )
    options.add_argument("--tasks", nargs="+", default=[*TASKS, MIXED], choices=[*TASKS, MIXED], help="what is asked")
    options.add_argument(
        "--beside", nargs="+", default=list(BESIDE), choices=list(BESIDE), help="what it is held against"
    )
    options.add_argument("--size", default="demo", choices=SIZES, help="of the models; those of 'middle' are random")
    options.add_argument("--edge", type=int, default=128, metavar="PIXELS", help="of the images")
    options.add_argument("--steps", type=int, default=20, metavar="N", help="of the decoder")
    options.add_argument("--batch-size", type=int, default=8, metavar="N", help="where batches are made")


@dataclass(frozen=True)
class Peer:
    """What a side took.

    Attributes:
        rate: images a second once it runs.
        start: seconds from the command until it does.
    """

    rate: float
    start: float


def peer(requests: Sequence[int], seconds: Sequence[float]) -> Peer:
    """From the requests and the seconds of the short run and of the long one."""
    each = (seconds[1] - seconds[0]) / (requests[1] - requests[0])
    return Peer(1 / max(each, 1e-9), max(0.0, seconds[0] - requests[0] * each))


def run(arguments: argparse.Namespace) -> None:
    """Print one line for each kind of request; the sides take turns.

    Raises:
        UsageError: the other interpreter lacks torch or diffusers, or a number does not fit.
    """
    if min(*arguments.requests, arguments.steps, arguments.batch_size) < 1 or arguments.edge % 64:
        raise UsageError("options: give numbers of 1 or more, and an --edge that 64 divides")
    short, long = arguments.requests
    if not 1 <= short // LOOPS_PART < long // LOOPS_PART:
        raise UsageError(f"option --requests: give {LOOPS_PART} or more, and {LOOPS_PART} or more beyond them")
    sides = _sides(arguments.beside, arguments.torch_python, arguments.batch_size)
    asked = f"the {arguments.size} size, {arguments.edge} px, {arguments.steps} steps"
    print(f"images/s once it runs (seconds of start); {asked}\n")
    print(
        tables.head(("requests", *sides, *(f"{OURS} / {name}" for name in sides if name != OURS)), text=("requests",))
    )
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        checkpoint = Path(folder) / "checkpoint"
        _write_checkpoint(arguments.size, checkpoint)
        for tasks in arguments.tasks:
            found = {}
            for name, side in sides.items():
                counts = [count // side.part for count in arguments.requests]
                seconds = []
                for count in counts:
                    manifest = Path(folder) / f"{tasks}-{count}.parquet"
                    if not manifest.exists():
                        write_manifest(manifest, tasks, count, arguments.edge, arguments.steps)
                    seconds.append(_seconds(f"{name}, {tasks}", side, checkpoint, manifest, count))
                found[name] = peer(counts, seconds)
            ours = found[OURS].rate
            cells = [f"{one.rate:.2f} ({one.start:.0f})" for one in found.values()]
            beside = [f"{ours / one.rate:.2f}" for name, one in found.items() if name != OURS]
            print(tables.row((tasks, *cells, *beside)), flush=True)


def _write_checkpoint(size: str, folder: Path) -> None:
    """Write it into a folder that is not there."""
    if size != "demo":
        made_up_checkpoint.write(size, folder)
        return
    # Here: it takes MindSpore's time to import.
    from workers.checkpoints import trained_weights

    folder.mkdir()
    trained_weights.write(folder)


#: A side's command, given checkpoint, manifest and the folder for its images.
_Command = Callable[[Path, Path, Path], list[str]]


@dataclass(frozen=True)
class _Side:
    """One that makes images.

    Attributes:
        part: it makes one of so many of the requests.
    """

    command: _Command
    part: int = 1


def _sides(beside: Sequence[str], torch_python: str | None, batch: int) -> Mapping[str, _Side]:
    def module(python: str, name: str, *more: str) -> _Command:
        return lambda checkpoint, manifest, folder: [
            *(python, "-m", f"jobs.benchmarks.{name}", str(checkpoint), str(manifest), str(folder)),
            *more,
        ]

    def ours(checkpoint: Path, manifest: Path, folder: Path) -> list[str]:
        places = ("--manifest", str(manifest), "--output", str(folder), "--checkpoint", str(checkpoint))
        return child.script("generate.py", *places, "--batch-size", str(batch))

    others = {
        "documents": _Side(module(sys.executable, "peer_loop"), LOOPS_PART),
        "ray-data": _Side(module(sys.executable, "peer_ray_data", str(batch)), LOOPS_PART),
    }
    if any(name.startswith("pytorch") for name in beside) and child.has_pytorch(torch_python):
        others["pytorch-loop"] = _Side(module(torch_python, "peer_pytorch", "1"), LOOPS_PART)
        others["pytorch-batches"] = _Side(module(torch_python, "peer_pytorch", str(batch)))
    wanted = {BESIDE[name].format(batch=batch): side for name, side in others.items() if name in beside}
    return {**wanted, OURS: _Side(ours)}


def _seconds(what: str, side: _Side, checkpoint: Path, manifest: Path, count: int) -> float:
    """Wall seconds of the whole command; its images must be there.

    Raises:
        KandinskyBatchError: the command failed, or left too few images.
    """
    with tempfile.TemporaryDirectory(dir=manifest.parent) as output:
        images = Path(output)
        command = side.command(checkpoint, manifest, images)
        ended = child.run_checked(f"{what}, {count} requests", command, env=child.plain_environment())
        made = sum(1 for _ in images.glob("*.png")) or _rows(images)
        if made != count:
            raise KandinskyBatchError(f"{what}: {made} images of {count}\n{ended.stdout}{ended.stderr}")
    return ended.seconds


def _rows(folder: Path) -> int:
    """Rows of the Parquet files: written images, or the index's successes."""
    import pyarrow.dataset as ds

    found = ds.dataset([str(path) for path in sorted(folder.glob("*.parquet"))])
    good = ds.field("status") == "success" if "status" in found.schema.names else None
    return int(found.count_rows(filter=good))
