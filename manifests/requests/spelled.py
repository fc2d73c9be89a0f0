"""Values that a manifest spells as text: numbers, words for nothing, UUIDs, and lists of conditions as JSON.

CSV has nothing but text, pandas turns whole numbers with one gap into "128.0", and DuckDB, Polars and Spark write
nested values as JSON where a table cannot hold them. What such a text means is decided here, and only what means
exactly one thing is taken.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.records import CONDITION_TYPE

#: What CSV writers put where a number is missing, in lower case.
_NOTHING = pa.array(["", "nan", "none", "null", "na", "n/a", "<na>", "#n/a"])

#: A number with an exponent; one with more digits than these is none that a column of ours may have.
_EXPONENT = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][+-]?[0-9]{1,2}$"


def digits(text: pa.Array, whole: bool) -> pa.Array:
    """Numbers in the spelling that Arrow casts, null for words that mean nothing; other texts stay as they are.

    Args:
        text: string, without blanks around.
        whole: whole numbers are meant, so that "128.0", "+128" and "1.28e2" become "128"; "128.5" stays.
    """
    text = pc.if_else(pc.is_in(pc.utf8_lower(text), value_set=_NOTHING), pa.scalar(None, pa.string()), text)
    if not whole:
        return text
    exponents = np.flatnonzero(pc.match_substring_regex(text, _EXPONENT).fill_null(False).to_numpy(False))
    if len(exponents):
        words = np.array(text.to_pylist(), object)
        for row in exponents:
            number = Decimal(words[row])
            if number == number.to_integral_value():
                words[row] = str(int(number))
        text = pa.array(words, pa.string())
    text = pc.replace_substring_regex(text, r"^\+([0-9])", r"\1")
    return pc.replace_substring_regex(text, r"^(-?[0-9]+)\.0*$", r"\1")


def is_uuid(kind: pa.DataType) -> bool:
    """True for Arrow's type of UUIDs, as which Parquet's is read."""
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.uuid"


def uuid_text(storage: pa.Array) -> pa.Array:
    """UUIDs as everybody writes them.

    Args:
        storage: fixed_size_binary(16).
    """
    raw = b"".join(storage.fill_null(b"\0" * 16).to_pylist())
    spelled = np.frombuffer(raw.hex().encode(), np.uint8).reshape(-1, 32)
    spelled = np.insert(spelled, [8, 12, 16, 20], ord("-"), axis=1)
    buffers = [None, pa.py_buffer(np.ascontiguousarray(spelled))]
    text = pa.Array.from_buffers(pa.binary(36), len(storage), buffers).cast(pa.string())
    return pc.if_else(storage.is_valid(), text, pa.scalar(None, pa.string()))


def conditions(text: pa.Array) -> tuple[pa.Array, list[int]]:
    """Conditions as list<CONDITION_TYPE> from JSON texts, and the rows whose text is no list of conditions.

    An image may be a location or an object with its `path`; members of other names are ignored.

    Args:
        text: string; blank ones are null.
    """
    values: list[list[dict[str, Any]] | None] = []
    bad = []
    for row, words in enumerate(text.to_pylist()):
        try:
            values.append(None if words is None or not words.strip() else _conditions(json.loads(words)))
        except (ValueError, OverflowError, RecursionError):
            values.append(None)
            bad.append(row)
    return pa.array(values, pa.list_(CONDITION_TYPE)), bad


def _conditions(value: Any) -> list[dict[str, Any]] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("not a list of objects")
    return [_condition(item) for item in value]


def _condition(item: dict[str, Any]) -> dict[str, Any]:
    text, image, weight = (item.get(name) for name in ("text", "image", "weight"))
    path = image.get("path") if isinstance(image, dict) else image
    if isinstance(image, dict) and image.get("bytes") is not None:
        raise ValueError("JSON has no bytes")
    if isinstance(weight, bool) or not isinstance(weight, (int, float, type(None))):
        raise ValueError("not a weight")
    for words in (text, path):
        if not isinstance(words, (str, type(None))):
            raise ValueError("not a text")
        # Half a character, which JSON can spell and UTF-8 cannot.
        (words or "").encode()
    place = {"bytes": None, "path": path or None}
    return {"text": text, "image": place, "weight": None if weight is None else float(weight)}
