"""All images of an output, as far as they are compared: some columns of every index, and the embeddings that are kept.

Memory holds some tens of bytes for each row, and of the embeddings one shard.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.output.catalog import open_index
from manifests.embeddings import kept_clip
from manifests.errors import SUCCESS, UsageError
from manifests.scores import COLUMNS, spellings

Places = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]

#: Of the index, beside what is compared.
_ALWAYS = ("key", "status", "manifest_row")


@dataclass(frozen=True)
class Images:
    """The rows of all shards, one after the other.

    Attributes:
        starts: of each shard its first row, and the number of all rows behind the last.
        keys: of the rows, strings.
        made: rows that have an image.
        requests: of each row, which one it is of.
        hashes: by row, 0 where there is none; None where they were not asked for.
        hashed: rows that have one.
        scores: name as it was asked for -> value by row, NaN where there is none.
    """

    starts: Places
    keys: pa.ChunkedArray
    made: npt.NDArray[np.bool_]
    requests: Places
    hashes: npt.NDArray[np.uint64]
    hashed: npt.NDArray[np.bool_]
    scores: dict[str, Numbers]

    def rows(self, shard: int) -> slice:
        """Where the rows of a shard stand."""
        return slice(int(self.starts[shard]), int(self.starts[shard + 1]))


def read_images(output: str, shards: int, with_hashes: bool, scores: Collection[str]) -> Images:
    """Read the columns of so many shards.

    Args:
        scores: columns of numbers; `clip_similarity` also stands for the one with an encoder's name.

    Raises:
        UsageError: an index lacks a column, or it is not of numbers.
        StorageError: an index cannot be read.
    """
    parts = [_part(output, shard, with_hashes, sorted(scores)) for shard in range(shards)]
    columns = [list(column) for column in zip(*parts, strict=True)]
    hashes = [_words(column) for column in columns[3]]
    return Images(
        starts=np.cumsum([0, *map(len, columns[0])]),
        keys=pa.chunked_array(columns[0], pa.string()),
        made=np.concatenate(columns[1]),
        requests=np.concatenate(columns[2]),
        hashes=np.concatenate([words for words, _ in hashes]),
        hashed=np.concatenate([there for _, there in hashes]),
        scores={name: np.concatenate([part[name] for part in columns[4]]) for name in scores},
    )


def _part(output: str, shard: int, with_hashes: bool, scores: Sequence[str]) -> tuple[Any, ...]:
    with open_index(output, shard) as file:
        schema = file.schema_arrow
        found = {name: column_of(schema, name) for name in scores}
        hashes = [column_of(schema, "image_phash")] if with_hashes else []
        table = file.read(columns=[*_ALWAYS, *hashes, *found.values()]).combine_chunks()
    keys = table["key"].combine_chunks() if table.num_rows else pa.array([], pa.string())
    return (
        keys,
        pc.equal(table["status"], SUCCESS).to_numpy(),
        table["manifest_row"].to_numpy().astype(np.int64),
        table[hashes[0]] if hashes else pa.chunked_array([pa.nulls(table.num_rows, pa.string())]),
        {name: table[column].cast(pa.float64()).to_numpy() for name, column in found.items()},
    )


def _words(hashes: pa.ChunkedArray) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    there = hashes.is_valid().to_numpy()
    words = np.zeros(len(hashes), np.uint64)
    words[there] = [int(text, 16) for text in hashes.drop_null().to_pylist()]
    return words, there


def column_of(schema: pa.Schema, name: str) -> str:
    """The column that a person means by a name.

    Raises:
        UsageError: there is none, or it has no numbers and is not a perceptual hash.
    """
    column = next((one for one in spellings(name) if one in schema.names), None)
    if column is None:
        near = difflib.get_close_matches(name, schema.names, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        if name in COLUMNS:
            hint = f"; add it first: --scores {name}"
        raise UsageError(f"the index has no column {name!r}{hint}")
    kind = schema.field(column).type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or name == "image_phash"):
        raise UsageError(f"the column {column!r} holds {kind} and no numbers, by which images could be ordered")
    return column


class KeptVectors:
    """The embeddings that an output keeps, shard by shard, as often as they are asked for.

    Attributes:
        rows: of each embedding, which of `images` it is of.
        width: numbers of each.

    Raises:
        UsageError: it keeps none, or of several widths.
        StorageError: they cannot be read.
    """

    def __init__(self, output: str, images: Images) -> None:
        self._output, self._shards = output, len(images.starts) - 1
        self.rows, self.width = np.zeros(0, np.int64), 0
        rows = []
        for shard, metadata, matrix in self._files():
            here = images.keys.slice(images.starts[shard], images.starts[shard + 1] - images.starts[shard])
            places = pc.index_in(metadata["key"], value_set=here).to_numpy()
            rows.append(places.astype(np.int64) + images.starts[shard])
            if self.width not in (0, matrix.shape[1]):
                raise UsageError(f"{output} keeps embeddings of {self.width} and of {matrix.shape[1]} numbers")
            self.width = matrix.shape[1]
        if not rows:
            raise UsageError(f"{output} keeps no embeddings of its images; add them first: --keep-clip")
        self.rows = np.concatenate(rows)

    def pieces(self) -> Iterator[npt.NDArray[np.float16]]:
        """The embeddings in the order of `rows`."""
        for _, _, matrix in self._files():
            yield matrix

    def _files(self) -> Iterator[tuple[int, pa.Table, npt.NDArray[np.float16]]]:
        for shard in range(self._shards):
            try:
                yield shard, *kept_clip.read(self._output, shard)
            except FileNotFoundError:
                continue
