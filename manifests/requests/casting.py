"""Any Arrow array to the type the schema wants: whole columns at once, and only values that do not fit fail.

Manifests come from pandas, Spark, DuckDB, `datasets` and hand-written scripts, so a height may arrive as
int8, float64, decimal, text or a dictionary of any of them. NaN in a float column counts as null, because
that is how pandas writes a missing number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.requests import spelled

Positions = npt.NDArray[np.int64]

_NONE: Positions = np.empty(0, np.int64)


@dataclass(frozen=True)
class Cast:
    """A cast array and the positions (int64, ascending) of values that did not fit and became null in it."""

    array: pa.Array
    bad: Positions


def plain(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One contiguous array without dictionary, run-end, view, extension or half-float encoding at its top."""
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks != 1 and array.num_chunks else _only(array)
    if isinstance(array, pa.ExtensionArray):
        return plain(array.storage)
    kind = array.type
    if pa.types.is_dictionary(kind):
        return plain(array.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(array))
    if pa.types.is_float16(kind):
        # Arrow casts half floats to integers by their bits; through double it does it by their value.
        return array.cast(pa.float64())
    if plain_type(kind) != kind:
        return array.cast(plain_type(kind))
    return array


def _only(array: pa.ChunkedArray) -> pa.Array:
    return array.chunk(0) if array.num_chunks else pa.nulls(0, array.type)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without dictionary or view encoding at its top, and without other libraries' extensions anywhere.

    Whether such an extension is seen depends on what this process has imported; the types of `pyarrow` itself stay.
    """
    kind = map_type(kind, _storage_type)
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    return kind


def _storage_type(kind: pa.DataType) -> pa.DataType:
    foreign = isinstance(kind, pa.BaseExtensionType) and not kind.extension_name.startswith("arrow.")
    return _item_named(map_type(kind.storage_type, _storage_type)) if foreign else kind


def _item_named(kind: pa.DataType) -> pa.DataType:
    """The type with lists whose values are called `item`, whatever an extension's class and the file call them."""

    def renamed(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_list(kind):
            return pa.list_(kind.value_type)
        return pa.large_list(kind.value_type) if pa.types.is_large_list(kind) else kind

    return map_type(kind, renamed)


#: Types that are made of others: how to know one, and how to make one of other fields.
_NESTED: list[tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType, list[pa.Field]], pa.DataType]]] = [
    (pa.types.is_struct, lambda _, fields: pa.struct(fields)),
    (pa.types.is_map, lambda kind, fields: pa.map_(*fields[0].type, kind.keys_sorted)),
    (pa.types.is_list, lambda _, fields: pa.list_(fields[0])),
    (pa.types.is_large_list, lambda _, fields: pa.large_list(fields[0])),
    (pa.types.is_fixed_size_list, lambda kind, fields: pa.list_(fields[0], kind.list_size)),
    (pa.types.is_list_view, lambda _, fields: pa.list_view(fields[0])),
    (pa.types.is_large_list_view, lambda _, fields: pa.large_list_view(fields[0])),
]


def map_type(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """A type with each of the types that it is made of changed, from the inside out; itself where nothing changes."""
    if kind.num_fields == 0:
        return change(kind)
    make = next((make for test, make in _NESTED if test(kind)), None)
    if make is not None:
        old = [kind.field(place) for place in range(kind.num_fields)]
        new = [_without_extension(field, map_type(field.type, change)) for field in old]
        if any(a is not b for a, b in zip(new, old, strict=True)):
            kind = make(kind, new)
    return change(kind)


def _without_extension(field: pa.Field, kind: pa.DataType) -> pa.Field:
    """A field with another type, and without the name of another library's extension that this process lacks."""
    kept = {key: value for key, value in (field.metadata or {}).items() if not key.startswith(b"ARROW:extension:")}
    if len(kept) < len(field.metadata or {}):
        return field.with_type(_item_named(kind)).with_metadata(kept or None)
    return field if kind == field.type else field.with_type(kind)


def plain_field(field: pa.Field) -> pa.DataType:
    """`plain_type` of a column, the same whether or not the library that wrote an extension has been imported."""
    return plain_type(_without_extension(field, field.type).type)


def positions(mask: pa.Array | npt.NDArray[np.bool_]) -> Positions:
    """Where a mask without nulls is true."""
    return np.flatnonzero(truth(mask))


def truth(mask: pa.Array | npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """A boolean Arrow array without nulls as NumPy."""
    return mask if isinstance(mask, np.ndarray) else mask.to_numpy(zero_copy_only=False)


def present(array: pa.Array) -> npt.NDArray[np.bool_]:
    """True where the array is not null."""
    return truth(array.is_valid())


def _nulled(array: pa.Array, kind: pa.DataType) -> Cast:
    """Nothing of this array can be cast: nulls, and every value that was there is bad."""
    return Cast(pa.nulls(len(array), kind), positions(array.is_valid()))


def _bisect(array: pa.Array, kind: pa.DataType, convert: Callable[[pa.Array], pa.Array]) -> Cast:
    """Convert the array; where it fails, halve it until the values that do not convert stand alone."""
    try:
        return Cast(convert(array), _NONE)
    except pa.ArrowNotImplementedError:
        return _nulled(array, kind)
    except pa.ArrowException:
        if len(array) <= 1:
            return _nulled(array, kind)
    half = len(array) // 2
    left, right = _bisect(array[:half], kind, convert), _bisect(array[half:], kind, convert)
    return Cast(pa.concat_arrays([left.array, right.array]), np.concatenate([left.bad, right.bad + half]))


def _casts(array: pa.Array, kind: pa.DataType) -> bool:
    try:
        array.cast(kind)
    except pa.ArrowException:
        return False
    return True


def failing(array: pa.Array, kind: pa.DataType, convert: Callable[[pa.Array], pa.Array]) -> Positions:
    """Positions of the values that do not convert to a type."""
    return _bisect(array, kind, convert).bad


def without_nan(array: pa.Array) -> pa.Array:
    """A float array with null where it held NaN."""
    return pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)


def to_number(column: pa.Array, kind: pa.DataType) -> Cast:
    """Numbers, and text that spells one, as `kind` (int64, uint64 or float64); fractions are no integers."""
    array, earlier = plain(column), _NONE
    source = array.type
    if pa.types.is_null(source):
        return Cast(pa.nulls(len(array), kind), _NONE)
    if pa.types.is_floating(source):
        array = without_nan(array)
    elif _is_text(source):
        text = to_text(array)
        array, earlier = pc.utf8_trim_whitespace(text.array), text.bad
        if not _casts(array, kind):
            array = spelled.digits(array, pa.types.is_integer(kind))
    elif not (pa.types.is_integer(source) or pa.types.is_decimal(source)):
        # Arrow would turn true into 1 and a date into days; nobody means that.
        return _nulled(array, kind)
    cast = _bisect(array, kind, lambda part: part.cast(kind))
    number = without_nan(cast.array) if pa.types.is_floating(kind) else cast.array
    return Cast(number, np.union1d(cast.bad, earlier) if len(earlier) else cast.bad)


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _utf8(part: pa.Array) -> pa.Array:
    # A string column of a Parquet file need not be UTF-8; only the cast from binary looks.
    return part.cast(pa.binary()).cast(pa.string())


def to_text(column: pa.Array) -> Cast:
    """Text, and anything Arrow can spell out (numbers, dates, true, UUIDs), as valid UTF-8 strings."""
    if spelled.is_uuid(column.type):
        return Cast(spelled.uuid_text(plain(column)), _NONE)
    array, kind = plain(column), pa.string()
    if pa.types.is_null(array.type):
        return Cast(pa.nulls(len(array), kind), _NONE)
    if pa.types.is_nested(array.type):
        return _nulled(array, kind)
    if _is_text(array.type):
        return _bisect(array, kind, _utf8)
    if pa.types.is_floating(array.type):
        return Cast(_float_text(without_nan(array)), _NONE)
    return _bisect(array, kind, lambda part: part.cast(kind))


#: Whole numbers up to here are spelled with all their digits; double tells them apart as far as 2**53.
_MOST_DIGITS = 1e18


def _float_text(array: pa.Array) -> pa.Array:
    """Floats as text: whole ones as whole numbers, where Arrow would write 1e+15."""
    text = array.cast(pa.string())
    whole = pc.and_(pc.equal(pc.floor(array), array), pc.less(pc.abs(array), _MOST_DIGITS))
    digits = pc.if_else(whole, array, 0.0).cast(pa.int64(), safe=False).cast(pa.string())
    return pc.if_else(pc.fill_null(whole, False), digits, text)


def field_of(array: pa.Array, name: str) -> pa.Array:
    """A field of a struct array, null where the struct is; all null where the struct lacks it."""
    if array.type.get_field_index(name) < 0:
        return pa.nulls(len(array))
    return pc.struct_field(array, name)


def to_image(column: pa.Array) -> Cast:
    """Locations, or structs with `bytes` and `path`, as struct<bytes: binary, path: string>.

    An empty path counts as none. The struct itself is never null; both of its fields may be.
    """
    array = plain(column)
    if not pa.types.is_struct(array.type):
        path = to_text(array) if _is_text(array.type) else _nulled(array, pa.string())
        return Cast(_image(pa.nulls(len(array), pa.binary()), path.array), path.bad)
    if not {"bytes", "path"} & {field.name for field in array.type}:
        nulled = _nulled(array, pa.string())
        return Cast(_image(pa.nulls(len(array), pa.binary()), nulled.array), nulled.bad)
    path = to_text(field_of(array, "path"))
    inline = plain(field_of(array, "bytes"))
    if pa.types.is_null(inline.type) or not _is_text(inline.type):
        data = _nulled(inline, pa.binary())
    else:
        data = _bisect(inline, pa.binary(), lambda part: part.cast(pa.binary()))
    return Cast(_image(data.array, path.array), np.union1d(data.bad, path.bad))


def _image(data: pa.Array, path: pa.Array) -> pa.Array:
    path = pc.if_else(pc.equal(path, ""), pa.scalar(None, pa.string()), path)
    return pa.StructArray.from_arrays([data, path], ["bytes", "path"])


def to_conditions(column: pa.Array) -> Cast:
    """Lists of structs with `text`, `image`, `weight`, or such as JSON text, as list<CONDITION_TYPE>.

    Other fields are ignored.
    """
    array = plain(column)
    kind = array.type
    if _is_text(kind):
        text = to_text(array)
        lists_of, wrong = spelled.conditions(text.array)
        return Cast(lists_of, np.union1d(text.bad, np.array(wrong, np.int64)))
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view)
    if not any(test(kind) for test in (*lists, pa.types.is_large_list_view)):
        bad = positions(array.is_valid())
        return Cast(_lists(np.zeros(len(array), np.int64), _conditions(pa.nulls(0))[0], ~present(array)), bad)
    # A list may hide values under its nulls: flattening drops them, and a null has no length.
    lengths = pc.list_value_length(array).fill_null(0).to_numpy().astype(np.int64)
    parents = np.repeat(np.arange(len(array)), lengths)
    values, bad_values = _conditions(pc.list_flatten(array))
    return Cast(_lists(lengths, values, ~present(array)), np.unique(parents[bad_values]))


def _conditions(values: pa.Array) -> tuple[pa.Array, Positions]:
    """Elements of condition lists as a struct array, and the positions of those that are not conditions."""
    values = plain(values)
    if not pa.types.is_struct(values.type):
        fields = [pa.nulls(len(values), pa.string()), to_image(pa.nulls(len(values))).array]
        struct = pa.StructArray.from_arrays([*fields, pa.nulls(len(values), pa.float64())], ["text", "image", "weight"])
        return struct, positions(values.is_valid())
    text = to_text(field_of(values, "text"))
    image = to_image(field_of(values, "image"))
    weight = to_number(field_of(values, "weight"), pa.float64())
    struct = pa.StructArray.from_arrays([text.array, image.array, weight.array], ["text", "image", "weight"])
    return struct, np.unique(np.concatenate([text.bad, image.bad, weight.bad]))


def _lists(lengths: npt.NDArray[np.int64], values: pa.Array, null: npt.NDArray[np.bool_]) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(null))


def shown(value: Any, limit: int = 60) -> str:
    """A manifest's value as a message shows it: its repr, shortened, inline bytes left out."""
    if isinstance(value, pa.Scalar):
        try:
            value = value.as_py()
        except UnicodeDecodeError:
            value = value.as_buffer().to_pybytes()[: limit + 1].decode(errors="replace")
        except (ValueError, OverflowError, ArithmeticError, pa.ArrowException):
            return f"a value of type {value.type}"
    text = "null" if value is None else repr(_tame(value, limit))
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _tame(value: Any, limit: int) -> Any:
    if isinstance(value, bytes):
        return _Bytes()
    if isinstance(value, str):
        return value[: limit + 1]
    if isinstance(value, dict):
        return {key: _tame(inner, limit) for key, inner in list(value.items())[:limit]}
    if isinstance(value, list):
        return [_tame(inner, limit) for inner in value[:limit]]
    return value


class _Bytes:
    """Stands for binary data in a message."""

    def __repr__(self) -> str:
        return "<bytes>"
