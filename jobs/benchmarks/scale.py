"""How busy the job keeps many devices: the real job on decoder actors that sleep as long as a batch would take.

Sleeping costs nothing, so one machine stands for many; what is measured is what this project and Ray add, on a driver
and a machine that carry all actors at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.benchmarks import child, tables
from jobs.benchmarks.made_up_manifest import write_manifest
from jobs.engine.pools import PRIOR_SHARE
from manifests.errors import UsageError

NAME = "scale"
HELP = "how busy sleeping devices are kept, by their number and by the seconds of a batch"

#: A prior call of a batch takes so much of its decoder call: 25 small steps beside 100 large ones.
_PRIOR_SHARE = 0.1

#: Images of a batch; small ones, so that encoding them costs this machine little.
_BATCH_SIZE = 4


@dataclass(frozen=True)
class Scale:
    """What one run has shown.

    Attributes:
        steady: share of the time that the devices worked, while all of them had work.
        whole: the time that the devices' work takes at least, by the time from the first call to the command's end.
        start_seconds: from the command to the first call.
    """

    steady: float
    whole: float
    start_seconds: float


def add_options(options: argparse._ArgumentGroup) -> None:
    """The options of this sub-command."""
    options.add_argument("--actors", type=int, nargs="+", default=[1, 4, 16, 32], metavar="N", help="decoder actors")
    options.add_argument("--seconds", type=float, nargs="+", default=[2, 10], metavar="SECONDS", help="of one batch")
    options.add_argument("--batches", type=int, default=20, metavar="N", help="per actor")


def run(arguments: argparse.Namespace) -> None:
    """One run per line of the table."""
    if min(*arguments.actors, arguments.batches) < 1 or min(arguments.seconds) <= 0:
        raise UsageError("options --actors, --batches and --seconds: give positive numbers")
    print(tables.head(("seconds per batch", "decoder actors", "steady", "whole", "seconds to the first call")))
    for seconds in arguments.seconds:
        for actors in arguments.actors:
            found = measure(actors, seconds, arguments.batches)
            figures = (f"{found.steady:.3f}", f"{found.whole:.3f}", f"{found.start_seconds:.1f}")
            print(tables.row((f"{seconds:g}", str(actors), *figures)), flush=True)


def measure(actors: int, seconds: float, batches: int) -> Scale:
    """Run the job once.

    Args:
        actors: of the decoder.
        seconds: that one of its calls takes.
        batches: per actor.

    Raises:
        KandinskyBatchError: the job failed.
    """
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        folder = Path(name)
        (folder / "log").mkdir()
        write_manifest(folder / "m.parquet", actors * batches * _BATCH_SIZE)
        command = [
            *(sys.executable, "-m", "jobs.benchmarks.sleeping", "--device", "cpu"),
            *("--manifest", str(folder / "m.parquet"), "--output", str(folder / "out")),
            *("--height", "64", "--width", "64", "--batch-size", str(_BATCH_SIZE), "--shard-size", "200"),
            *("--decoder-actors", str(actors), "--prior-actors", str(max(1, round(actors * PRIOR_SHARE)))),
        ]
        environment = {
            **os.environ,
            "PYTHONPATH": str(child.ROOT),
            "RAY_ADDRESS": "local",
            "SLEEP_LOG": str(folder / "log"),
            "SLEEP_DECODER": str(seconds),
            "SLEEP_PRIOR": str(seconds * _PRIOR_SHARE),
        }
        began = time.time()
        child.run_checked(f"the run with {actors} actors", command, folder, environment)
        end = time.time()
        logs = [path.read_text().splitlines() for path in (folder / "log").iterdir()]
    calls = [[tuple(json.loads(line)) for line in lines] for lines in logs]
    first = min(call[0] for mine in calls for call in mine)
    return Scale(steady_share(calls), batches * seconds / (end - first), first - began)


def steady_share(calls: Sequence[Sequence[tuple[float, float]]]) -> float:
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
