"""What finding near duplicates costs: seconds and memory for made-up hashes and embeddings, and how many are missed.

Each size is searched in a fresh process. Of every hundred images one is a near copy of another, planted, so that what
is found can be counted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.benchmarks import child, tables
from manifests.errors import UsageError

NAME = "duplicates"
HELP = "find planted near duplicates among made-up hashes and embeddings of several sizes"

_SCRIPT = Path(__file__).with_name("duplicate_search.py")

#: Images for each near copy among them.
PER_COPY = 100


@dataclass(frozen=True)
class Search:
    """One search.

    Attributes:
        rule: as `score.py --duplicates` takes it.
        seconds: from the first comparison to the last group; making the data up is not in it.
        found: share of the planted copies that are in the group of their original.
        peak_bytes: most memory that the process held (resident), made-up data included.
    """

    rule: str
    images: int
    seconds: float
    found: float
    peak_bytes: int


def add_options(options: argparse._ArgumentGroup) -> None:
    """The options of this sub-command."""
    options.add_argument(
        "--hashes", type=int, nargs="+", default=[1_000_000, 10_000_000], metavar="N", help="sizes for image_phash"
    )
    options.add_argument("--bits", type=int, default=4, metavar="N", help="that near hashes may differ in")
    options.add_argument(
        "--embeddings",
        type=int,
        nargs="*",
        default=[20_000, 100_000],
        metavar="N",
        help="sizes for clip, 768 numbers each",
    )


def run(arguments: argparse.Namespace) -> None:
    """Measure every size in turn and print the table."""
    if min([*arguments.hashes, *arguments.embeddings]) < PER_COPY:
        raise UsageError(f"options --hashes and --embeddings: give {PER_COPY} or more")
    measured = [measure(f"image_phash:{arguments.bits}", images) for images in arguments.hashes]
    measured += [measure("clip:0.95", images) for images in arguments.embeddings]
    print(table(measured))


def measure(rule: str, images: int) -> Search:
    """Search among so many in a process of its own."""
    ended = child.run_checked(f"{rule} of {images:,}", [sys.executable, str(_SCRIPT), rule, str(images)])
    return Search(rule, images, peak_bytes=ended.peak_bytes, **json.loads(ended.stdout))


def table(measured: Sequence[Search]) -> str:
    """Rules and sizes side by side, in Markdown."""
    rows = []
    for one in measured:
        first = next(other for other in measured if other.rule == one.rule)
        figures = (f"{one.images:,}", f"{one.seconds:.1f}", f"{one.found:.4f}")
        rows.append((one.rule, *figures, *tables.peak_cells(one.peak_bytes, first.peak_bytes)))
    columns = ("rule", "images", "seconds", "found", *tables.PEAK_COLUMNS)
    return tables.table(columns, rows, text=("rule",))
