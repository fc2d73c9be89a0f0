"""Ids and seeds: unique over the whole manifest, made from the content where the manifest gives none.

A content id is the 128-bit BLAKE2b of the row's request columns as given (defaults left out, inline images
included), so a manifest that is made again, in whatever column types, gets the same ids and resumes. Rows
with the same content are told apart by `-1`, `-2` … in the order they come. Locations are hashed as they are
written, so moving a manifest along with its images changes no id.

To find what repeats, the driver keeps 8 bytes per row. Windows get only what follows from it: the rows that
repeat, each with the one number that it needs.
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

from manifests import casting
from manifests.schema import REQUEST_NAMES

Hashes = npt.NDArray[np.uint64]

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
    return [hashlib.blake2b(content, digest_size=16).digest() for content in contents]


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
    if not pa.types.is_binary(array.type):
        array = array.cast(pa.string()).cast(pa.binary())
    cell = pc.binary_join_element_wise(pa.scalar(name.encode()), _length(array), array, pa.scalar(b":"))
    return [cell.fill_null(b"")]


def _length(array: pa.Array) -> pa.Array:
    return pc.binary_length(array).cast(pa.string()).cast(pa.binary())


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


class IdWatch:
    """Sees the ids of all windows once, keeps 8 bytes per row, and then says what repeats."""

    def __init__(self) -> None:
        self._hashes: list[Hashes] = []
        self._derived: list[npt.NDArray[np.bool_]] = []

    def see(self, ids: pa.Array, digests: Sequence[bytes]) -> Hashes:
        """Take in the ids of the next window.

        Args:
            ids: the ids as given.
            digests: content digests of the rows in `derived_rows(ids)`.

        Returns:
            The first 64 bits of each digest.
        """
        derived = derived_rows(ids)
        hashes = np.empty(len(ids), np.uint64)
        content = np.frombuffer(b"".join(digest[:8] for digest in digests), "<u8")
        hashes[derived] = content
        if len(digests) < len(ids):
            # Python's hash differs from process to process; it only says which rows to compare in full.
            own = ids.filter(pa.array(~derived)).to_pylist()
            hashes[~derived] = np.fromiter(map(hash, own), np.int64, len(own)).view(np.uint64)
        self._hashes.append(hashes)
        # One flag stands for a whole window of one kind.
        self._derived.append(derived if derived.any() and not derived.all() else derived[:1].copy())
        return content

    def repeats(self, read_ids: Callable[[int], pa.Array]) -> list[Repeats]:
        """What repeats in each window.

        Args:
            read_ids: gives the id column of a window by its number, which only ever rises within one pass.
        """
        rows = [len(hashes) for hashes in self._hashes]
        hashes = np.concatenate([*self._hashes, np.empty(0, np.uint64)])
        derived = np.concatenate(
            [np.broadcast_to(flags, count) for flags, count in zip(self._derived, rows, strict=True)]
            + [np.empty(0, bool)]
        )
        starts = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)
        own_rows, own_first = self._own_repeats(hashes, derived, starts, read_ids)
        content_rows, suffixes = self._content_repeats(hashes, derived, starts, read_ids)
        all_rows = np.concatenate([own_rows, content_rows])
        order = np.argsort(all_rows)
        all_rows, numbers = all_rows[order], np.concatenate([own_first, suffixes])[order]
        own = order < len(own_rows)
        cuts = np.searchsorted(all_rows, starts)
        return [
            Repeats(all_rows[a:b] - start, numbers[a:b], own[a:b]) if b > a else NO_REPEATS
            for a, b, start in zip(cuts[:-1], cuts[1:], starts[:-1], strict=True)
        ]

    def _own_repeats(
        self,
        hashes: Hashes,
        derived: npt.NDArray[np.bool_],
        starts: npt.NDArray[np.int64],
        read_ids: Callable[[int], pa.Array],
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows that use an id of an earlier row, and that row; ids are compared in full."""
        candidates = _among(hashes, _doubles(hashes[~derived])) & ~derived
        first_use: dict[str, int] = {}
        rows, firsts = [], []
        for window in np.unique(np.searchsorted(starts, np.flatnonzero(candidates), side="right") - 1):
            local = np.flatnonzero(candidates[starts[window] : starts[window + 1]])
            ids = read_ids(int(window)).take(pa.array(local)).to_pylist()
            for row, name in zip(local + starts[window], ids, strict=True):
                first = first_use.setdefault(name, int(row))
                if first != row:
                    rows.append(int(row))
                    firsts.append(first)
        return np.array(rows, np.int64), np.array(firsts, np.int64)

    def _content_repeats(
        self,
        hashes: Hashes,
        derived: npt.NDArray[np.bool_],
        starts: npt.NDArray[np.int64],
        read_ids: Callable[[int], pa.Array],
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows whose content id needs a suffix, and the suffix."""
        content = hashes[derived]
        taken: dict[int, int] = {}
        if derived.any() and not derived.all():
            taken = self._taken_suffixes(np.unique(content), len(starts) - 1, read_ids)
        names = np.union1d(_doubles(content), np.array(sorted(taken), np.uint64))
        rows = np.flatnonzero(_among(hashes, names) & derived)
        order = np.argsort(hashes[rows], kind="stable")
        rows = rows[order]
        groups, first, counts = np.unique(hashes[rows], return_index=True, return_counts=True)
        base = np.array([taken.get(int(group), 0) for group in groups], np.int64)
        suffixes = np.arange(len(rows)) - np.repeat(first, counts) + np.repeat(base, counts)
        return rows[suffixes > 0], suffixes[suffixes > 0].astype(np.int64)

    @staticmethod
    def _taken_suffixes(content: Hashes, windows: int, read_ids: Callable[[int], pa.Array]) -> dict[int, int]:
        """Content hash -> first suffix that no row uses as an id of its own, where any does.

        Only a manifest that mixes content ids with ids copied from an earlier output comes here for a reason.
        """
        taken: dict[int, int] = {}
        for window in range(windows):
            for name in read_ids(window).to_pylist():
                match = _CONTENT_ID.fullmatch(name) if name else None
                if match is None:
                    continue
                value = int.from_bytes(bytes.fromhex(match[1][:16]), "little")
                place = int(np.searchsorted(content, np.uint64(value)))
                if place < len(content) and int(content[place]) == value:
                    taken[value] = max(taken.get(value, 0), int(match[2] or 0) + 1)
        return taken


def _doubles(hashes: Hashes) -> Hashes:
    """Values that are there more than once, ascending."""
    ordered = np.sort(hashes)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def _among(hashes: Hashes, values: Hashes) -> npt.NDArray[np.bool_]:
    """True where a hash is one of the ascending values."""
    if len(values) == 0:
        return np.zeros(len(hashes), bool)
    return values[np.minimum(np.searchsorted(values, hashes), len(values) - 1)] == hashes
