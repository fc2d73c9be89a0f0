"""The source of a manifest that is a product: every prompt in every style with every value of some columns."""

from __future__ import annotations

import itertools
import math
import posixpath
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.errors import UsageError
from manifests.making.tables import ROWS, Source, Stream, find, text
from manifests.requests import casting
from manifests.requests.schema import REQUEST_NAMES, RULES, complaint

#: Where a style wants the prompt; a style without it follows the prompt behind a comma.
PLACEHOLDER = "{prompt}"

#: Values of one range; more are no list that a person means.
_MOST_VALUES = 10_000_000


def product(words: Sequence[str]) -> Stream:
    """Every combination of what `prompts.txt x styles.txt x seeds 0..3` names, the last one turning fastest.

    The first file of texts holds prompts, further ones hold styles. Where there are styles, the texts of each file are
    also a column, named after the file, that tells the images apart.

    Args:
        words: factors with an `x` between: a file of texts, or a numeric column and its values (`seeds 0..3`, both ends
            count; `guidance_scale 2,4.5`).

    Raises:
        UsageError: the words do not make a product, or a value is outside what its column may have.
    """
    factors: dict[str, pa.Array] = {}
    for is_sign, group in itertools.groupby(words, lambda word: word == "x"):
        if is_sign:
            continue
        factor = list(group)
        column = factor[0] if factor[0] in RULES else factor[0].removesuffix("s")
        if column in RULES:
            if len(factor) != 2 or column in factors:
                raise UsageError(_misspelled(factor))
            factors[column] = _values(column, factor)
        elif len(factor) == 1:
            factors[_name(factor[0], factors)] = _texts(factor[0])
        else:
            raise UsageError(f"option --product: put an x between the factors, not {' '.join(factor)!r}")
    names = [name for name, values in factors.items() if pa.types.is_string(values.type)]
    if not names:
        raise UsageError("option --product: name at least one file of texts, as in `prompts.txt x seeds 0..3`")
    told = [name for name in factors if name not in names or len(names) > 1]
    columns = pa.schema([pa.field("prompt", pa.string()), *(pa.field(name, factors[name].type) for name in told)])
    return Stream(columns, _tables(factors, names, columns))


def _tables(factors: Mapping[str, pa.Array], names: Sequence[str], columns: pa.Schema) -> Iterator[Source]:
    shape = [len(values) for values in factors.values()]
    rows = math.prod(shape)
    for start in range(0, rows, ROWS):
        places = np.unravel_index(np.arange(start, min(start + ROWS, rows)), shape)
        taken = {
            name: values.take(pa.array(place)) for (name, values), place in zip(factors.items(), places, strict=True)
        }
        prompt = taken[names[0]]
        for name in names[1:]:
            prompt = _styled(prompt, taken[name])
        arrays = [prompt, *(taken[name] for name in columns.names[1:])]
        yield Source(pa.table(arrays, schema=columns), "the product", start)


def _styled(prompts: pa.Array, styles: pa.Array) -> pa.Array:
    has_place = pc.match_substring(styles, PLACEHOLDER)
    # A replacement is the same for all rows, but each row has its own prompt, so the style is cut in two at its place.
    sides = pc.split_pattern(pc.if_else(has_place, styles, PLACEHOLDER), PLACEHOLDER, max_splits=1)
    before, behind = pc.list_element(sides, 0), pc.list_element(sides, 1)
    placed = pc.binary_join_element_wise(before, prompts, behind, "")
    return pc.if_else(has_place, placed, pc.binary_join_element_wise(prompts, styles, ", "))


def _name(location: str, taken: Collection[str]) -> str:
    """A name for the column of a file's texts, which no request column has."""
    stem = posixpath.splitext(posixpath.basename(location))[0]
    return stem if stem and stem not in (*REQUEST_NAMES, *taken) else f"text_{len(taken)}"


def _texts(location: str) -> pa.Array:
    tables = [source.table.column("prompt") for source in text(find([location], (".txt",))[0]).tables]
    if not tables:
        raise UsageError(f"option --product: {location} has no texts; write one per line")
    return pa.chunked_array([chunk for column in tables for chunk in column.chunks]).combine_chunks()


def _values(column: str, factor: Sequence[str]) -> pa.Array:
    """The numbers that `0..3` or `2,4.5` spell, each within what its column may have."""
    pieces: list[str] = []
    for piece in factor[1].split(","):
        first, dots, last = piece.partition("..")
        if not dots:
            pieces.append(piece)
        elif first.isdecimal() and last.isdecimal() and 0 <= int(last) - int(first) < _MOST_VALUES:
            pieces += map(str, range(int(first), int(last) + 1))
        else:
            raise UsageError(_misspelled(factor))
    numbers = casting.to_number(pa.array(pieces), RULES[column].kind).array
    for piece, value in zip(pieces, numbers.to_pylist(), strict=True):
        if value is None or not RULES[column].holds(value):
            raise UsageError(f"option --product: {complaint(column, repr(piece), value)}")
    return numbers


def _misspelled(factor: Sequence[str]) -> str:
    return (
        f"option --product: {' '.join(factor)!r} is not `seeds A..B`, with A up to B, or another numeric column with "
        "values like 2,4.5, given once"
    )
