"""One type for each column outside the request schema, over all files of a manifest: never one that changes a value.

A type is enough where it is wider than that of every file (int32 and int64). Where it is not (int64 and double, seconds
and nanoseconds), the values decide: the column is read, and takes the first of these types that holds all of them: the
one Arrow would choose, those of the files, and for times the units between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pyarrow as pa

from manifests.errors import ManifestError
from manifests.requests.casting import Positions, failing, map_type, shown

#: Gives the values of a column of one file, by its location, in the order of its rows.
Values = Callable[[str], Iterator[pa.Array]]


def common_type(column: str, kinds: Mapping[str, pa.DataType], values: Values) -> pa.DataType:
    """The type of a column.

    Args:
        column: its name, for messages.
        kinds: location of a file -> the plain type that the column has in it.
        values: the column's values; asked for where types alone do not tell.

    Raises:
        ManifestError: no type holds the values of all files.
    """
    first, joined = next(iter(kinds.items()))
    for url, kind in kinds.items():
        wider = join_types(joined, kind)
        if wider is None:
            raise ManifestError(
                f"column '{column}' is {joined} in {first} but {kind} in {url}; "
                "write both with one type, or rename one of them"
            )
        joined = wider
    found = dict.fromkeys(kinds.values())
    if all(_is_wider(joined, kind) for kind in found):
        return joined
    troubles = []
    for candidate in dict.fromkeys([joined, *found, *_units(joined)]):
        trouble = next((t for url, kind in kinds.items() if (t := _trouble(url, kind, candidate, values))), None)
        if trouble is None:
            return candidate
        troubles.append(trouble)
    other = next(f"{kind} in {url}" for url, kind in kinds.items() if kind != kinds[troubles[0][0]])
    url, row, value = troubles[0]
    raise ManifestError(
        f"{url}: column '{column}', row {row}: {value} would change as {joined}, and the column is {other}; "
        "write both with one type, or rename one of them"
    )


def _units(kind: pa.DataType) -> list[pa.DataType]:
    if pa.types.is_timestamp(kind):
        return [pa.timestamp(unit, kind.tz) for unit in ("us", "ms", "s")]
    return [pa.duration(unit) for unit in ("us", "ms", "s")] if pa.types.is_duration(kind) else []


def _trouble(url: str, kind: pa.DataType, wanted: pa.DataType, values: Values) -> tuple[str, int, str] | None:
    """File, row and value of the first value that another type does not hold; None where it holds all."""
    if _is_wider(wanted, kind):
        return None
    start = 0
    for array in values(url):
        bad = lost(array, wanted)
        if len(bad):
            return url, start + int(bad[0]), shown(array[int(bad[0])])
        start += len(array)
    return None


def lost(array: pa.Array, kind: pa.DataType) -> Positions:
    """Positions of the values that another type would change."""

    def convert(part: pa.Array) -> pa.Array:
        cast = part.cast(kind)
        # Arrow checks integers and times, and takes what is near where decimals and floats meet.
        if any(_holds(one, pa.types.is_decimal) for one in (part.type, kind)):
            if not cast.cast(part.type).equals(part):
                raise pa.ArrowInvalid("not the same when it comes back")
            if _holds(kind, pa.types.is_float32) and not _same_in_double(part, cast):
                raise pa.ArrowInvalid("a decimal has more digits than these")
        return cast

    return failing(array, kind, convert)


def _same_in_double(part: pa.Array, cast: pa.Array) -> bool:
    simple = not pa.types.is_nested(part.type)
    return simple and bool(cast.cast(pa.float64()).equals(part.cast(pa.float64())))


def _holds(kind: pa.DataType, test: Callable[[pa.DataType], bool]) -> bool:
    return test(kind) or any(_holds(kind.field(place).type, test) for place in range(kind.num_fields))


def _is_wider(wide: pa.DataType, kind: pa.DataType) -> bool:
    """True where a type is known to hold every value of another one."""
    if wide == kind or pa.types.is_null(kind):
        return True
    if pa.types.is_integer(wide) and pa.types.is_integer(kind):
        signed = pa.types.is_signed_integer
        return wide.bit_width > kind.bit_width and (signed(wide) or not signed(kind))
    if pa.types.is_integer(kind) and wide == pa.decimal128(20, 0):
        return True
    if pa.types.is_floating(wide) and pa.types.is_floating(kind):
        return bool(wide.bit_width >= kind.bit_width)
    texts, binaries = (pa.types.is_string, pa.types.is_large_string), (pa.types.is_binary, pa.types.is_large_binary)
    if any(test(wide) for test in texts):
        return any(test(kind) for test in texts)
    return any(test(wide) for test in binaries) and any(
        test(kind) for test in (*texts, *binaries, pa.types.is_fixed_size_binary)
    )


def join_types(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that Arrow has for values of both, with some loss or without; None where there is none."""
    if one == other:
        return one
    signed = pa.types.is_signed_integer(one) or pa.types.is_signed_integer(other)
    if signed and pa.uint64() in (one, other) and all(map(pa.types.is_integer, (one, other))):
        # Arrow would take int64, which half of uint64 does not fit in.
        return pa.decimal128(20, 0)
    try:
        schemas = [pa.schema([pa.field("column", kind)]) for kind in (one, other)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


def has_text(kind: pa.DataType) -> bool:
    """True where values of a type are or hold text, which a file may have in bytes that are not UTF-8."""
    return as_bytes(kind) != kind


def as_bytes(kind: pa.DataType) -> pa.DataType:
    """The type with binary in place of every text."""

    def changed(kind: pa.DataType) -> pa.DataType:
        if isinstance(kind, pa.BaseExtensionType):
            inner = as_bytes(kind.storage_type)
            return kind if inner == kind.storage_type else inner
        if pa.types.is_dictionary(kind):
            inner = as_bytes(kind.value_type)
            return kind if inner == kind.value_type else inner
        if pa.types.is_string(kind) or pa.types.is_string_view(kind):
            return pa.binary()
        return pa.large_binary() if pa.types.is_large_string(kind) else kind

    return map_type(kind, changed)
