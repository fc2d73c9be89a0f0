"""The `.json` member of a sample: record and other columns, in types that loaders can infer.

`datasets.load_dataset("webdataset", …)` takes the types of all shards from the first five samples of the
first one. A value that is null there and set later ends the load with an error; an integer there and 0.5
later becomes 0; a seed above 2**63 does not fit; a key that only appears later is lost. So every member has
the same keys, none is null, and what a key holds is decided by its column's type alone:

    text, binary (base64), times (ISO 8601)   a string; "" where the column is null
    `seed`                                    a string of digits
    other columns of the record               their own type; `strength` is 1.0 where it does not apply
                                              (all decoder steps are run, which is what it means)
    `conditions`, and other columns of the    JSON text, such as "0.5", "[1, 2]" or "null"
    manifest that are none of the above

`has_negative_prompt` tells a null negative prompt from "". The Parquet index has every column as it is.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from manifests.records import RECORD_NAMES

# Stand-ins for nulls of record columns that are neither text nor nested. A successful sample has the other
# numbers.
_NEUTRAL = {"strength": 1.0, "prompt_truncated": False}


def sidecar_json(row: Mapping[str, Any], schema: pa.Schema) -> bytes:
    """One sample as UTF-8 JSON text.

    Args:
        row: Python values of one row of the index.
        schema: the index's, which names the keys and their order.
    """
    members: dict[str, Any] = {}
    for field in schema:
        members[field.name] = _member(field, row[field.name])
        if field.name == "negative_prompt":
            members["has_negative_prompt"] = row[field.name] is not None
    return json.dumps(members, ensure_ascii=False, allow_nan=False).encode()


def _member(field: pa.Field, value: Any) -> Any:
    if field.name == "seed":
        return "" if value is None else str(value)
    if _is_text_like(field.type):
        return "" if value is None else plain(value)
    if field.name in RECORD_NAMES and not pa.types.is_nested(field.type):
        return plain(_NEUTRAL.get(field.name) if value is None else value)
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)


def _is_text_like(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
        pa.types.is_fixed_size_binary,
        pa.types.is_temporal,
        pa.types.is_decimal,
    )
    return any(test(kind) for test in tests)


def plain(value: Any) -> Any:
    """A value of `to_pylist()` in terms of JSON: numbers that JSON lacks (NaN, infinite) become null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return f"PT{decimal.Decimal(value // datetime.timedelta(microseconds=1)).scaleb(-6).normalize():f}S"
    return str(value)
