"""What it costs to start a finished run again: seconds and memory of a driver that finds nothing to do.

The finished run is made up, but only where resume does not look: manifest, plan and stats files are real, tars and
indexes are missing. The start is the real command in a fresh process.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.benchmarks import child, tables
from jobs.benchmarks.made_up_manifest import write_manifest
from manifests.errors import KandinskyBatchError, UsageError

NAME = "resume"
HELP = "start finished runs again; the last size is held against the first"


@dataclass(frozen=True)
class Resume:
    """One start that had nothing to do.

    Attributes:
        images: of the finished run.
        shards: of the finished run.
        seconds: from the command to its end.
        peak_bytes: most memory that the driver held (resident).
    """

    images: int
    shards: int
    seconds: float
    peak_bytes: int


def add_options(options: argparse._ArgumentGroup) -> None:
    """The options of this sub-command."""
    options.add_argument(
        "--images", type=int, nargs="+", default=[10_000, 1_000_000], metavar="N", help="sizes of finished runs"
    )
    options.add_argument("--shard-size", type=int, default=1000, metavar="N", help="images per shard")


def run(arguments: argparse.Namespace) -> None:
    """Measure every size in turn and print the table."""
    if min(*arguments.images, arguments.shard_size, 1) < 1:
        raise UsageError("options --images and --shard-size: give numbers of 1 or more")
    measured = []
    for images in arguments.images:
        with tempfile.TemporaryDirectory(prefix="resume-") as folder:
            measured.append(measure(Path(folder), images, arguments.shard_size))
    print(table(measured))


def measure(folder: Path, images: int, shard_size: int) -> Resume:
    """Make a finished run in an empty folder, and start it again.

    Raises:
        KandinskyBatchError: the start did anything but find that there is nothing to do.
    """
    manifest, output = folder / "m.parquet", folder / "out"
    shards = _finished_run(manifest, output, images, shard_size)
    options = ("--manifest", str(manifest), "--output", str(output), "--shard-size", str(shard_size))
    ended = child.run(child.script("generate.py", *options))
    told = ended.stdout + ended.stderr
    if ended.returncode or "nothing to do" not in told or f"{images} images written, 0 failed" not in told:
        raise KandinskyBatchError(f"the finished run ended with {ended.returncode} when started again:\n{told}")
    return Resume(images, shards, ended.seconds, ended.peak_bytes)


def table(measured: Sequence[Resume]) -> str:
    """The sizes side by side, in Markdown."""
    rows = []
    for one in measured:
        cells = (f"{one.images:,}", f"{one.shards:,}", f"{one.seconds:.1f}")
        rows.append((*cells, *tables.peak_cells(one.peak_bytes, measured[0].peak_bytes)))
    return tables.table(("images", "shards", "seconds", *tables.PEAK_COLUMNS), rows)


def _finished_run(manifest: Path, output: Path, images: int, shard_size: int) -> int:
    """An output whose stats files say that it is done; returns how many shards that is."""
    # Here: `--help` should not wait for them.
    from jobs.run import run_folder
    from manifests.commit import FileStats, ShardStats, index_name, tar_name, write_stats
    from manifests.config import RunConfig
    from manifests.planning.plan import plan

    write_manifest(manifest, images)
    config = RunConfig(manifest=(str(manifest),), output=str(output), shard_size=shard_size)
    planned = plan(config)
    run_folder.begin(config, planned)
    for number, shard in enumerate(planned.shards):
        tar, index = (FileStats(name=name(number), bytes=1, sha256="0" * 64) for name in (tar_name, index_name))
        stats = ShardStats(
            shard=number,
            task=shard.task,
            count=shard.rows,
            successes=shard.rows,
            failed=0,
            failed_by_status={},
            bytes=1,
            tar=tar,
            parquet=index,
        )
        write_stats(config.output, stats)
    return len(planned.shards)
