"""What the embedding store costs: bytes per embedding, and seconds and memory of looking a fragment up.

The embeddings are noise, which shrinks less than real ones would. Every store is looked up in a fresh process.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.benchmarks import child, tables
from manifests.errors import UsageError

NAME = "embeddings"
HELP = "look fragments up in embedding stores; the last size is held against the first"

#: Width of the published checkpoint's embeddings.
REAL_WIDTH = 768

#: Rows that the size of one embedding is taken from.
_RATIO_ROWS = 4000

_SCRIPT = Path(__file__).resolve().parent / "embedding_lookups.py"


@dataclass(frozen=True)
class Lookup:
    """One store.

    Attributes:
        rows: embeddings, each with its negative one.
        raw_ratio: bytes of the whole store by the bytes of the bare vectors.
        first, together, scattered: seconds of a lookup of one fragment: the process's first one, a later one of
            neighbours in the store, and one of rows all over it.
        peak_bytes: most memory that the process held (resident).
    """

    rows: int
    raw_ratio: float
    first: float
    together: float
    scattered: float
    peak_bytes: int


def add_options(options: argparse._ArgumentGroup) -> None:
    """The options of this sub-command."""
    options.add_argument(
        "--rows", type=int, nargs="+", default=[50_000, 5_000_000], metavar="N", help="sizes of the stores"
    )
    options.add_argument("--fragment", type=int, default=1000, metavar="N", help="rows of one lookup")
    options.add_argument(
        "--lookups", type=int, default=5, metavar="N", help="of each kind, the best of all but the first counts"
    )
    options.add_argument(
        "--width", type=int, default=64, metavar="N", help="of a vector; 768 needs 15 GB for five million"
    )
    options.add_argument("--dtype", choices=["float16", "float32"], default="float16", help="of a vector")


def run(arguments: argparse.Namespace) -> None:
    """Measure every size in turn and print the table."""
    if min(*arguments.rows, arguments.fragment, arguments.width) < 1 or arguments.lookups < 2:
        raise UsageError("options --rows, --fragment and --width: give 1 or more; --lookups: 2 or more")
    measured = []
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory(prefix="embeddings-") as folder:
            measured.append(measure(folder, rows, arguments))
    ratios = [f"{dtype} {_ratio(dtype, REAL_WIDTH):.2f}" for dtype in ("float16", "float32")]
    print(f"bytes of an embedding of the real width ({REAL_WIDTH}) with all that belongs to it, its bare vectors = 1:")
    print(f"{', '.join(ratios)}\n")
    print(f"{arguments.dtype} x {arguments.width}, lookups of {arguments.fragment} rows, seconds\n")
    print(table(measured, arguments.fragment))


def measure(folder: str, rows: int, arguments: argparse.Namespace) -> Lookup:
    """Fill a store in an empty folder and look fragments up.

    Raises:
        KandinskyBatchError: an embedding was not found.
    """
    raw_ratio = _filled_store(folder, rows, arguments.dtype, arguments.width)
    numbers = (arguments.width, arguments.fragment, arguments.lookups)
    command = [sys.executable, str(_SCRIPT), folder, str(rows), arguments.dtype]
    ended = child.run_checked("the lookups", command + [str(number) for number in numbers])
    return Lookup(rows, raw_ratio, peak_bytes=ended.peak_bytes, **json.loads(ended.stdout))


def table(measured: Sequence[Lookup], fragment: int) -> str:
    """The sizes side by side, in Markdown."""
    rows = []
    for one in measured:
        times = (f"{one.first:.3f}", f"{one.together:.3f}", f"{one.scattered:.3f}", f"{fragment / one.together:,.0f}")
        peak = tables.peak_cells(one.peak_bytes, measured[0].peak_bytes)
        rows.append((f"{one.rows:,}", f"{one.raw_ratio:.2f}", *times, *peak))
    columns = ("embeddings", "bytes, raw = 1", "first", "together", "scattered", "hits/s", *tables.PEAK_COLUMNS)
    return tables.table(columns, rows)


def _ratio(dtype: str, width: int) -> float:
    with tempfile.TemporaryDirectory(prefix="embeddings-") as folder:
        return _filled_store(folder, _RATIO_ROWS, dtype, width)


def _filled_store(folder: str, rows: int, dtype: str, width: int) -> float:
    """Fill a store as runs and a last merge of its index would; bytes by those of the bare vectors."""
    # Here: `--help` should not wait for them.
    from jobs.benchmarks.embedding_rows import CHECKPOINT, PART_ROWS, part_rows
    from manifests.embeddings.key_index import merge_index
    from manifests.embeddings.keys import Origin
    from manifests.embeddings.store import EmbeddingStore

    store, origin = EmbeddingStore(folder), Origin(CHECKPOINT, dtype, width)
    for part in range(-(-rows // PART_ROWS)):
        store.add(part_rows(part, min(PART_ROWS, rows - part * PART_ROWS), origin))
    merge_index(folder, store.index_files)
    size = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
    return size / (rows * 2 * width * int(dtype.removeprefix("float")) / 8)
