"""What planning costs: rows per second validated and planned, and the memory of the driver, at several sizes.

Each size is planned by the real command in a fresh process, once with ids and seeds in the manifest and once without,
where every id is made from its row's content. Large sizes are read by Ray tasks, as they are in a run; the memory
is that of the driver alone. Seconds are those of planning, Ray's start included where it is used.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.benchmarks import child, tables
from jobs.benchmarks.made_up_manifest import write_manifest
from manifests.errors import KandinskyBatchError, UsageError

NAME = "plan"
HELP = "plan manifests of several sizes; the memory of each is held against the first"

#: Rows of the manifest that are made and written together; also its row groups.
_ROWS = 10_000

#: Sizes of the images, in no order that windows could profit from.
_SIDES = ((512, 512), (768, 512), (512, 768), (640, 448))


@dataclass(frozen=True)
class Planned:
    """One manifest planned.

    Attributes:
        own_ids: the manifest gives ids and seeds.
        seconds: of planning.
        peak_bytes: most memory that the process held (resident).
    """

    rows: int
    own_ids: bool
    seconds: float
    peak_bytes: int


def add_options(options: argparse._ArgumentGroup) -> None:
    """The options of this sub-command."""
    options.add_argument(
        "--rows", type=int, nargs="+", default=[1_000_000, 10_000_000], metavar="N", help="sizes of manifests"
    )


def run(arguments: argparse.Namespace) -> None:
    """Measure every size in turn and print the table."""
    if min(*arguments.rows, 1) < 1:
        raise UsageError("option --rows: give numbers of 1 or more")
    measured = []
    for own_ids in (True, False):
        for rows in arguments.rows:
            with tempfile.TemporaryDirectory(prefix="plan-") as folder:
                measured.append(measure(Path(folder), rows, own_ids))
    print(table(measured))


def measure(folder: Path, rows: int, own_ids: bool) -> Planned:
    """Make a manifest in an empty folder, and plan it.

    Raises:
        KandinskyBatchError: the plan is not that of such a manifest.
    """
    manifest = folder / "m.parquet"
    write_manifest(manifest, rows, _columns_of_four_sizes(own_ids), _ROWS)
    command = child.script("plan.py", "--manifest", str(manifest), "--output", str(folder / "out"), "--json")
    ended = child.run_checked(f"planning {rows} rows", command)
    found = json.loads(ended.stdout)
    if (found["rows"], found["rejected"], found["images"]) != (rows, 0, rows):
        raise KandinskyBatchError(f"planning {rows} rows found {found['rows']}, {found['rejected']} of them rejected")
    return Planned(rows, own_ids, found["seconds"], ended.peak_bytes)


def table(measured: Sequence[Planned]) -> str:
    """The sizes side by side, in Markdown."""
    rows = []
    for one in measured:
        first = next(other for other in measured if other.own_ids == one.own_ids)
        whose = "in the manifest" if one.own_ids else "made from the content"
        cells = (f"{one.rows:,}", whose, f"{one.seconds:.1f}", f"{one.rows / one.seconds:,.0f}")
        rows.append((*cells, *tables.peak_cells(one.peak_bytes, first.peak_bytes)))
    columns = ("rows", "ids and seeds", "seconds", "rows per second", *tables.PEAK_COLUMNS)
    return tables.table(columns, rows, text=("ids and seeds",))


def _columns_of_four_sizes(own_ids: bool) -> Callable[[range], Mapping[str, Any]]:
    """Columns of text2img requests in four sizes."""
    # Here: `--help` should not wait for them.
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    sides = np.array(_SIDES, np.int32)
    random = np.random.default_rng(0)

    def columns(rows: range) -> Mapping[str, Any]:
        numbers = pa.array(np.arange(rows.start, rows.stop), pa.uint64())
        words = numbers.cast(pa.string())
        picked = sides[random.integers(0, len(sides), len(numbers))]
        made = {
            "task": pa.array(np.full(len(numbers), "text2img", object)),
            "prompt": pc.binary_join_element_wise("a prompt of a fair length, number", words, "in watercolour", " "),
            "height": pa.array(picked[:, 0]),
            "width": pa.array(picked[:, 1]),
        }
        if own_ids:
            made |= {"id": pc.binary_join_element_wise("request", words, "-"), "seed": numbers}
        return made

    return columns
