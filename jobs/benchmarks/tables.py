"""Markdown tables: how every benchmark prints what it measured."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

#: Heads of the cells that `peak_cells` fills.
PEAK_COLUMNS = ("peak MiB", "peak, first = 1")


def head(columns: Sequence[str], text: Collection[str] = ()) -> str:
    """The first two lines of a table: columns of numbers, but for those named in `text`."""
    return f"{row(columns)}\n|{'|'.join('---' if column in text else '---:' for column in columns)}|"


def row(cells: Sequence[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], text: Collection[str] = ()) -> str:
    """A whole table; arguments as for `head`."""
    return "\n".join([head(columns, text), *map(row, rows)])


def peak_cells(peak_bytes: int, first_bytes: int) -> tuple[str, str]:
    """The most memory that a process held, and how many times that of the first one it is."""
    return f"{peak_bytes / 2**20:.0f}", f"{peak_bytes / first_bytes:.2f}"
