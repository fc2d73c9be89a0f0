"""What making a manifest costs: rows per second and memory, for sources of several kinds and sizes.

Each source is read by the real command in a fresh process; its start is in the seconds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.benchmarks import child, tables
from manifests.errors import KandinskyBatchError, UsageError

NAME = "make-manifest"
HELP = "make manifests of several kinds and sizes; the memory of each is held against the first size of its kind"

#: Kinds of sources; a product is a thousand prompts with as many seeds as the size asks for.
KINDS = ("csv", "jsonl", "product")

_PROMPTS = 1000


@dataclass(frozen=True)
class MadeOnce:
    """One manifest made.

    Attributes:
        kind: one of `KINDS`.
        seconds: from the command to its end.
        peak_bytes: most memory that the process held (resident).
    """

    kind: str
    rows: int
    seconds: float
    peak_bytes: int


def add_options(options: argparse._ArgumentGroup) -> None:
    """The options of this sub-command."""
    options.add_argument(
        "--rows", type=int, nargs="+", default=[1_000_000, 4_000_000], metavar="N", help="sizes of sources"
    )


def run(arguments: argparse.Namespace) -> None:
    """Measure every kind and size in turn and print the table."""
    if any(rows < _PROMPTS or rows % _PROMPTS for rows in arguments.rows):
        raise UsageError(f"option --rows: give multiples of {_PROMPTS}")
    measured = []
    for kind in KINDS:
        for rows in arguments.rows:
            with tempfile.TemporaryDirectory(prefix="make-manifest-") as folder:
                measured.append(measure(Path(folder), kind, rows))
    print(table(measured))


def measure(folder: Path, kind: str, rows: int) -> MadeOnce:
    """Write a source into an empty folder, and make a manifest of it.

    Raises:
        KandinskyBatchError: it is not the manifest of such a source.
    """
    options = _write(folder, kind, rows)
    command = child.script("make_manifest.py", *options, "--output", str(folder / "m.parquet"))
    ended = child.run_checked(f"a {kind} of {rows} rows", command)
    if not ended.stdout.startswith(f"{rows:,} rows"):
        raise KandinskyBatchError(f"a {kind} of {rows} rows made another manifest:\n{ended.stdout}")
    return MadeOnce(kind, rows, ended.seconds, ended.peak_bytes)


def table(measured: Sequence[MadeOnce]) -> str:
    """Kinds and sizes side by side, in Markdown."""
    rows = []
    for one in measured:
        first = next(other for other in measured if other.kind == one.kind)
        figures = (f"{one.rows:,}", f"{one.seconds:.1f}", f"{one.rows / one.seconds:,.0f}")
        rows.append((one.kind, *figures, *tables.peak_cells(one.peak_bytes, first.peak_bytes)))
    columns = ("source", "rows", "seconds", "rows per second", *tables.PEAK_COLUMNS)
    return tables.table(columns, rows, text=("source",))


def _write(folder: Path, kind: str, rows: int) -> list[str]:
    """The options that name a new source."""
    if kind == "product":
        (folder / "p.txt").write_text("".join(f"a prompt of a fair length, number {n}\n" for n in range(_PROMPTS)))
        return ["--product", str(folder / "p.txt"), "x", "seeds", f"0..{rows // _PROMPTS - 1}"]
    source = folder / f"source.{kind}"
    with source.open("w") as file:
        if kind == "csv":
            file.write("id,caption,height,score\n")
        for number in range(rows):
            row = {"id": str(number), "caption": f"a prompt, number {number}, of a fair length", "height": 512}
            row["score"] = number / 7
            file.write(
                json.dumps(row) + "\n" if kind == "jsonl" else '{id},"{caption}",{height},{score}\n'.format(**row)
            )
    return [f"--{kind}", str(source), "--map", "caption=prompt"]
