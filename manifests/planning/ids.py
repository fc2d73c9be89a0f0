"""Ids and seeds: unique over the whole manifest, made from the content where the manifest gives none.

A content id is the 128-bit BLAKE2b of the row's request columns as given (defaults left out, inline images
included), so a manifest that is made again, in whatever column types, gets the same ids and resumes. Rows
with the same content are told apart by `-1`, `-2` … in the order they come. Locations are hashed as they are
written, so moving a manifest along with its images changes no id.

To find what repeats, the driver sorts 64 bits per row, on disk beyond a million of them (`external_sort.py`). Windows
get only what follows from it: the rows that repeat, each with the one number that it needs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.planning.external_sort import Hashes, HashRuns, text_hashes
from manifests.requests import casting
from manifests.requests.schema import IMAGE_COLUMNS, REQUEST_NAMES, SETTINGS

#: Columns with so few different values in a window that each is spelled out once.
_FEW_VALUES = frozenset({"task", "mask_polarity", "num_images", *SETTINGS})

_CONTENT_ID = re.compile(r"([0-9a-f]{32})(?:-([1-9][0-9]{0,8}))?")


def derive_seed(job_seed: int, request_id: str) -> int:
    """The seed of a request that has none: 64 bits from the job's seed and the request's id.

    Anyone can redo it:
    `int.from_bytes(hashlib.blake2b(f"{job_seed}/{id}".encode(), digest_size=8).digest(), "little")`.
    """
    digest = hashlib.blake2b(f"{job_seed}/{request_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def derived_rows(ids: pa.Array) -> npt.NDArray[np.bool_]:
    """True where the manifest gives no usable id: null or empty."""
    return casting.truth(pc.fill_null(pc.equal(ids, ""), True))


def content_digests(columns: Mapping[str, pa.Array], rows: casting.Positions) -> list[bytes]:
    """16-byte digests of the request columns of some rows.

    Each value that is not null adds `name:length:value`, which reads back in one way only; a null adds
    nothing, so a column of nulls and an absent one are the same.
    """
    cells = []
    for name in REQUEST_NAMES:
        array = columns[name]
        if name != "id" and array.null_count < len(array):
            cells.extend(_cells(name, array if len(rows) == len(array) else array.take(pa.array(rows))))
    if not cells:
        contents: list[bytes] = [b""] * len(rows)
    else:
        contents = pc.binary_join_element_wise(*cells, pa.scalar(b"")).to_pylist()
    # Looked up once: this is the longest line of planning.
    blake2b = hashlib.blake2b
    return [blake2b(content, digest_size=16).digest() for content in contents]


def _cells(name: str, array: pa.Array) -> list[pa.Array]:
    """`name:length:value` of each value as binary arrays, empty where null; nested values become several."""
    kind = array.type
    if array.null_count == len(array):
        return []
    if pa.types.is_struct(kind):
        inner = (_cells(f"{name}.{field.name}", pc.struct_field(array, field.name)) for field in kind)
        return [cell for cells in inner for cell in cells]
    if pa.types.is_list(kind):
        values = array.flatten()
        items = _cells("item", values) or [pa.array([b""] * len(values), pa.binary())]
        joined = pc.binary_join_element_wise(*items, pa.scalar(b""))
        lengths = pc.list_value_length(array).fill_null(0).to_numpy()
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        lists = pa.ListArray.from_arrays(pa.array(offsets), joined, mask=array.is_null())
        # Items are framed one by one, so that ["ab"] and ["a", "b"] differ.
        framed = pc.list_flatten(lists)
        framed = pc.binary_join_element_wise(_length(framed), framed, pa.scalar(b":"))
        lists = pa.ListArray.from_arrays(pa.array(offsets), framed, mask=array.is_null())
        return _cells(name, pc.binary_join(lists, pa.scalar(b"")))
    if pa.types.is_floating(kind):
        # The bits, because the text of a float is a library's choice.
        array = pc.if_else(array.is_valid(), array.fill_null(0.0).view(pa.int64()), None)
    if name in _FEW_VALUES:
        encoded = array.dictionary_encode()
        return [_cell(name, encoded.dictionary).take(encoded.indices).fill_null(b"")]
    return [_cell(name, array).fill_null(b"")]


def _cell(name: str, array: pa.Array) -> pa.Array:
    if not pa.types.is_binary(array.type):
        array = array.cast(pa.string()).cast(pa.binary())
    return pc.binary_join_element_wise(pa.scalar(name.encode()), _length(array), array, pa.scalar(b":"))


def _length(array: pa.Array) -> pa.Array:
    return pc.binary_length(array).cast(pa.string()).cast(pa.binary())


#: Rows that one image is copied to, at most, before it is computed again: a batch holds the pixels of all its copies.
MOST_COPIES = 15


def first_equals(columns: Mapping[str, pa.Array], rows: casting.Positions) -> casting.Positions:
    """Of each of these rows the first one that asks for the very same images: the same content and a given seed.

    Only rows that give their seed are compared: one that is made from the id is different with every id. Rows with
    inline images are not, because the driver does not read those. After `MOST_COPIES` the next equal row counts as new.

    Returns:
        Positions in the columns, the row's own where no earlier one is equal.
    """
    alone = ~casting.present(columns["seed"])
    for name in IMAGE_COLUMNS:
        alone |= casting.present(pc.struct_field(columns[name], "bytes"))
    equals = rows.copy()
    compared = np.flatnonzero(~alone[rows])
    first: dict[bytes, tuple[int, int]] = {}
    for place, digest in zip(compared.tolist(), content_digests(columns, rows[compared]), strict=True):
        row, copies = first.get(digest, (int(rows[place]), -1))
        row, copies = (row, copies + 1) if copies < MOST_COPIES else (int(rows[place]), 0)
        first[digest] = row, copies
        equals[place] = row
    return equals


@dataclass(frozen=True)
class Repeats:
    """The rows of a window whose id needs more than their content.

    Attributes:
        rows: int64, ascending positions in the window.
        numbers: int64. For a row whose id comes from its content: the suffix that makes it unique. For a row
            with an id of its own: the manifest's row that used this id first.
        own: bool, true where the row has an id of its own, which makes it an error.
    """

    rows: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    own: npt.NDArray[np.bool_]

    def split(self) -> tuple[dict[int, int], dict[int, int]]:
        """Row -> suffix of its content id, and row -> the row that used its own id first."""
        pairs = list(zip(self.rows.tolist(), self.numbers.tolist(), self.own.tolist(), strict=True))
        suffixes = {row: number for row, number, own in pairs if not own}
        return suffixes, {row: number for row, number, own in pairs if own}


NO_REPEATS = Repeats(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, bool))


@dataclass(frozen=True)
class WindowNames:
    """What the watch must know of the ids of one window; 9 bytes per row, the same from whatever process.

    Attributes:
        hashes: uint64 (rows,); of a row without an id the first 64 bits of its content digest, else of the id.
        derived: bool (rows,), true where the id comes from the content.
        claimed: uint64, content hashes whose names some rows use as ids of their own: copied from an earlier output.
        suffixes: int64, the suffix that each of these has, 0 for none.
    """

    hashes: Hashes
    derived: npt.NDArray[np.bool_]
    claimed: Hashes
    suffixes: npt.NDArray[np.int64]

    @property
    def content_hashes(self) -> Hashes:
        """Of the rows whose id comes from the content."""
        return self.hashes[self.derived]

    @classmethod
    def of(cls, ids: pa.Array, digests: Sequence[bytes]) -> WindowNames:
        """Look at a window.

        Args:
            ids: the ids as given.
            digests: content digests of the rows in `derived_rows(ids)`, in order.
        """
        derived = derived_rows(ids)
        hashes = np.empty(len(ids), np.uint64)
        hashes[derived] = np.frombuffer(b"".join(digests), "<u8")[::2]
        if derived.all():
            return cls(hashes, derived, np.empty(0, np.uint64), np.empty(0, np.int64))
        own = ids if not derived.any() else ids.filter(pa.array(~derived))
        hashes[~derived] = text_hashes(own)
        long = own.filter(pc.greater_equal(pc.binary_length(own), 32))
        copied = long.filter(pc.match_substring_regex(long, f"^{_CONTENT_ID.pattern}$")).to_pylist()
        matches = [match for match in map(_CONTENT_ID.fullmatch, copied) if match]
        return cls(
            hashes,
            derived,
            np.frombuffer(b"".join(bytes.fromhex(match[1][:16]) for match in matches), "<u8").astype(np.uint64),
            np.array([int(match[2] or 0) for match in matches], np.int64),
        )


class IdWatch:
    """Takes in the names of all windows once, in order, and then says what repeats."""

    def __init__(self) -> None:
        self._starts = [0]
        self._own, self._content, self._claims = HashRuns(), HashRuns(), HashRuns()

    def __enter__(self) -> IdWatch:
        return self

    def __exit__(self, *_: object) -> None:
        for runs in (self._own, self._content, self._claims):
            runs.close()

    def see(self, names: WindowNames) -> None:
        """Take in the next window."""
        rows = np.arange(self._starts[-1], self._starts[-1] + len(names.hashes))
        self._own.add(names.hashes[~names.derived], rows[~names.derived])
        self._content.add(names.content_hashes, rows[names.derived])
        self._claims.add(names.claimed, names.suffixes)
        self._starts.append(self._starts[-1] + len(names.hashes))

    def repeats(self, read_ids: Callable[[int], pa.Array]) -> list[Repeats]:
        """What repeats in each window.

        Args:
            read_ids: gives the id column of a window by its number, which only ever rises.
        """
        own_rows, own_first = self._own_repeats(read_ids)
        content_rows, suffixes = self._content_repeats()
        all_rows = np.concatenate([own_rows, content_rows])
        order = np.argsort(all_rows)
        all_rows, numbers = all_rows[order], np.concatenate([own_first, suffixes])[order]
        own = order < len(own_rows)
        cuts = np.searchsorted(all_rows, self._starts)
        return [
            Repeats(all_rows[a:b] - start, numbers[a:b], own[a:b]) if b > a else NO_REPEATS
            for a, b, start in zip(cuts[:-1], cuts[1:], self._starts[:-1], strict=True)
        ]

    def _own_repeats(self, read_ids: Callable[[int], pa.Array]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows that use an id of an earlier row, and that row; ids are compared in full."""
        found = [np.empty(0, np.int64)]
        for hashes, rows in self._own.partitions():
            same = hashes[1:] == hashes[:-1]
            found += [rows[:-1][same], rows[1:][same]]
        candidates = np.unique(np.concatenate(found))
        first_use: dict[str, int] = {}
        later, firsts = [], []
        windows = np.searchsorted(self._starts, candidates, side="right") - 1
        for window in np.unique(windows):
            mine = candidates[windows == window] - self._starts[window]
            names = read_ids(int(window)).take(pa.array(mine)).to_pylist()
            for row, name in zip((mine + self._starts[window]).tolist(), names, strict=True):
                first = first_use.setdefault(name, row)
                if first != row:
                    later.append(row)
                    firsts.append(first)
        return np.array(later, np.int64), np.array(firsts, np.int64)

    def _content_repeats(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows whose content id needs a suffix, and the suffix: the first that no earlier row and no claim has."""
        found_rows, found_suffixes = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        claims = self._claims.partitions()
        for (hashes, rows), (claimed, claimed_suffixes) in zip(self._content.partitions(), claims, strict=True):
            groups, first, counts = np.unique(hashes, return_index=True, return_counts=True)
            base = np.zeros(len(groups), np.int64)
            known = np.isin(claimed, groups)
            np.maximum.at(base, np.searchsorted(groups, claimed[known]), claimed_suffixes[known] + 1)
            suffixes = np.arange(len(rows)) - np.repeat(first, counts) + np.repeat(base, counts)
            found_rows.append(rows[suffixes > 0])
            found_suffixes.append(suffixes[suffixes > 0])
        return np.concatenate(found_rows), np.concatenate(found_suffixes)
