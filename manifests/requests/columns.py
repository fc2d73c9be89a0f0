"""The request columns of a manifest fragment in the schema's types, and which values did not fit them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from manifests.requests import casting
from manifests.requests.schema import IMAGE_COLUMNS, REQUEST_NAMES, RULES


@dataclass(frozen=True)
class Given:
    """The request columns of a table fragment as the manifest gives them, in the schema's types.

    Attributes:
        columns: every request column, values that did not fit and absent columns as null. `image` and `mask`
            are struct<bytes, path>, `conditions` list<CONDITION_TYPE>, whole numbers int64 (`seed` uint64).
        misfits: column -> positions (int64) of values that the schema's type cannot hold.
        raw: the tables that the columns were cast from, in order, for messages.
    """

    rows: int
    columns: Mapping[str, pa.Array]
    misfits: Mapping[str, casting.Positions]
    raw: tuple[pa.Table, ...]

    def show(self, column: str, row: int) -> str:
        """The value as the manifest has it, shortened."""
        for table in self.raw:
            if row < table.num_rows:
                missing = column not in table.column_names
                return "null" if missing else casting.shown(table.column(column)[row])
            row -= table.num_rows
        raise IndexError(f"row {row} is outside the fragment")


def cast_requests(tables: Sequence[pa.Table]) -> Given:
    """Bring the request columns of consecutive tables, whatever their types, to the schema's types."""
    parts: dict[str, list[casting.Cast]] = {name: [] for name in REQUEST_NAMES}
    starts = np.cumsum([0, *(table.num_rows for table in tables)])
    for table in tables:
        for name in REQUEST_NAMES:
            column = table.column(name) if name in table.column_names else pa.nulls(table.num_rows)
            parts[name].append(cast_request(name, column))
    columns = {
        name: casts[0].array if len(casts) == 1 else pa.concat_arrays([cast.array for cast in casts])
        for name, casts in parts.items()
    }
    misfits = {
        name: np.concatenate([cast.bad + start for cast, start in zip(casts, starts, strict=False)])
        for name, casts in parts.items()
    }
    return Given(int(starts[-1]), columns, misfits, tuple(tables))


def cast_request(name: str, column: pa.Array) -> casting.Cast:
    """One request column in the schema's type."""
    if name in RULES:
        return casting.to_number(column, RULES[name].kind)
    if name in IMAGE_COLUMNS:
        return casting.to_image(column)
    if name == "conditions":
        return casting.to_conditions(column)
    return casting.to_text(column)
