"""How busy the job keeps many cards: the real job on actors that sleep as long as a batch would take.

Sleeping costs nothing, so one machine stands for many; what is measured is what this project and Ray add, on a driver
and a machine that carry all actors at once. The cards are NPUs in Ray's books alone. `--faster 20` has twenty seconds
pass in one; the job is told the times that pass (`--times-of`), and takes loading to be as much shorter, so it chooses
as it would.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.benchmarks import child, tables
from jobs.benchmarks.made_up_manifest import write_manifest
from manifests.errors import UsageError

NAME = "scale"
HELP = "how busy sleeping cards are kept, by their number, by the seconds of a batch and by the prior's part of them"

#: Images of a batch; small ones, so that encoding them costs this machine little.
_BATCH_SIZE = 4

#: What Ray is told that this machine has of CPUs: enough for any number of actors, which only sleep.
_CPUS = 64

SCHEDULES = ("auto", "pools", "phases")

#: Begin and end of a call, in seconds.
Call = tuple[float, float]


@dataclass(frozen=True)
class Load:
    """What a run is measured with.

    Attributes:
        cards: of the cluster.
        seconds: of a batch, prior and decoder together.
        share: of them, the prior's.
        batches: per card.
        loading: seconds that an actor takes to load its model.
        schedule: as `jobs/generate.py` takes it.
        faster: seconds of the above that pass in one second.
    """

    cards: int
    seconds: float
    share: float
    batches: int
    loading: float = 0.0
    schedule: str = "auto"
    faster: float = 1.0

    @property
    def work(self) -> float:
        """Seconds that all batches take one card."""
        return self.cards * self.batches * self.seconds


@dataclass(frozen=True)
class Scale:
    """What one run has shown.

    Attributes:
        schedule: that the job took.
        cards: the least time of all work, the prior's too, on all cards, by the time from the first call to the end of
            the last one.
        steady: share of the time that the decoders worked, while all of them had work.
        whole: as `cards`, but to the command's end.
        start_seconds: from the command to the first call.
        first_seconds: from there to the first batch of images.
    """

    schedule: str
    cards: float
    steady: float
    whole: float
    start_seconds: float
    first_seconds: float


def add_options(options: argparse._ArgumentGroup) -> None:
    """The options of this sub-command."""
    options.add_argument("--cards", type=int, nargs="+", default=[8], metavar="N", help="of the cluster")
    options.add_argument("--seconds", type=float, nargs="+", default=[2], metavar="SECONDS", help="of one batch")
    options.add_argument(
        "--prior-share", type=float, nargs="+", default=[0.02, 0.085], metavar="PART", help="of a batch's seconds"
    )
    options.add_argument("--batches", type=int, default=20, metavar="N", help="per card")
    options.add_argument(
        "--schedule", nargs="+", default=["auto"], choices=SCHEDULES, metavar="WHICH", help="auto, pools, phases"
    )
    options.add_argument("--faster", type=float, default=1, metavar="N", help="seconds that pass in one")
    options.add_argument("--loading", type=float, default=0, metavar="SECONDS", help="until an actor has its model")


def run(arguments: argparse.Namespace) -> None:
    """One run per line of the table."""
    positive = (*arguments.cards, arguments.batches, *arguments.seconds, *arguments.prior_share, arguments.faster)
    if min(positive) <= 0:
        raise UsageError("options --cards, --batches, --seconds, --prior-share and --faster: give positive numbers")
    if max(arguments.prior_share) >= 1 or arguments.loading < 0:
        raise UsageError("option --prior-share: is less than 1; option --loading: is not negative")
    columns = ("cards", "hours", "seconds per batch", "prior", "schedule", "cards busy", "decoders, steady", "whole")
    print(tables.head((*columns, "first call, s", "first images, s"), text=("schedule",)))
    cases = itertools.product(arguments.seconds, arguments.prior_share, arguments.cards, arguments.schedule)
    for seconds, share, cards, schedule in cases:
        load = Load(cards, seconds, share, arguments.batches, arguments.loading, schedule, arguments.faster)
        found = measure(load)
        size = (str(cards), f"{load.work / cards / 3600:.2f}", f"{seconds:g}", f"{share:.1%}", found.schedule)
        busy = (f"{found.cards:.3f}", f"{found.steady:.3f}", f"{found.whole:.3f}")
        times = (f"{found.start_seconds:.1f}", f"{found.first_seconds:.1f}")
        print(tables.row((*size, *busy, *times)), flush=True)


def measure(load: Load) -> Scale:
    """Run the job once.

    Raises:
        KandinskyBatchError: the job failed.
    """
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        folder = Path(name)
        (folder / "log").mkdir()
        write_manifest(folder / "m.parquet", load.cards * load.batches * _BATCH_SIZE)
        options = [
            *("--manifest", str(folder / "m.parquet"), "--output", str(folder / "out")),
            *("--height", "64", "--width", "64", "--batch-size", str(_BATCH_SIZE), "--shard-size", "200"),
            *("--device", "ascend", "--schedule", load.schedule, "--times-of", str(folder / "before")),
        ]
        _tell_times(load, options, folder / "before")
        environment = {
            **child.plain_environment(),
            "RAY_OVERRIDE_RESOURCES": json.dumps({"NPU": load.cards, "CPU": _CPUS}),
            "SLEEP_LOG": str(folder / "log"),
            "SLEEP_FASTER": str(load.faster),
            "SLEEP_LOAD": str(load.loading / load.faster),
            "SLEEP_DECODER": str(load.seconds * (1 - load.share) / load.faster),
            "SLEEP_PRIOR": str(load.seconds * load.share / load.faster),
        }
        began = time.time()
        command = [sys.executable, "-m", "jobs.benchmarks.sleeping", *options]
        child.run_checked(f"the run on {load.cards} cards", command, folder, environment)
        end = time.time()
        logs = [path.read_text().splitlines() for path in (folder / "log").iterdir()]
        report = json.loads((folder / "out" / "_run" / "run.json").read_text())
    calls = [[tuple(json.loads(line)) for line in lines] for lines in logs]
    return figures(load, report["schedule"], began, calls, end)


def _tell_times(load: Load, options: Sequence[str], output: Path) -> None:
    """Write what an earlier run would have measured."""
    # Here: `--help` should not wait for it.
    from jobs.cli import parse_config
    from jobs.cost.step_times import BucketTimes, StepTimes
    from jobs.run import run_folder
    from manifests.planning.plan import plan

    config = parse_config(options, "")
    [(bucket, tally)] = plan(config).buckets.items()
    batch = load.seconds / load.faster
    seconds = {"prior": batch * load.share, "decoder": batch * (1 - load.share)}
    times = BucketTimes(
        bucket=bucket, batches=tally.batches, images=tally.samples, size=_BATCH_SIZE, seconds=seconds, bytes_per_image=1
    )
    record = StepTimes(device="ascend", batch_size=_BATCH_SIZE, prior_actors=1, decoder_actors=1, buckets=(times,))
    run_folder.write_times(config.model_copy(update={"output": str(output)}), record)


def figures(
    load: Load, schedule: str, began: float, logs: Sequence[Sequence[tuple[str, float, float]]], end: float
) -> Scale:
    """What the calls of a run say.

    Args:
        schedule: that the job took.
        began, end: of the command.
        logs: of each actor its calls, ascending: stage, begin and end.
    """
    calls: Mapping[str, list[list[Call]]] = {
        stage: [[(start, stop) for _, start, stop in mine] for mine in logs if mine and mine[0][0] == stage]
        for stage in ("prior", "decoder")
    }
    first = min(start for mine in logs for _, start, _ in mine)
    last = max(stop for mine in logs for *_, stop in mine)
    ideal = load.work / load.cards / load.faster
    images = min(mine[0][1] for mine in calls["decoder"])
    steady = steady_share(calls["decoder"])
    busy, whole = ideal / (last - first), ideal / (end - first)
    return Scale(schedule, busy, steady, whole, first - began, images - first)


def steady_share(calls: Sequence[Sequence[Call]]) -> float:
    """Share of the actors' time spent in calls, from the last first call's begin to the first last call's end.

    Args:
        calls: of each actor, ascending.
    """
    begin = max(mine[0][0] for mine in calls)
    end = min(mine[-1][1] for mine in calls)
    if end <= begin:
        return 0.0
    busy = sum(max(0.0, min(stop, end) - max(start, begin)) for mine in calls for start, stop in mine)
    return busy / (len(calls) * (end - begin))
