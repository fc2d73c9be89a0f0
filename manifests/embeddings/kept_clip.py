"""Embeddings of images that a run keeps (`--keep-clip`), in clip-retrieval's layout, two files a shard.

    OUTPUT/_run/clip/img_emb/img_emb_00000.npy            float16 (rows, width), each row of length 1
    OUTPUT/_run/clip/metadata/metadata_00000.parquet      METADATA of the same rows

A row is an image whose embedding is known, in the index's order; a shard without any has no files. They are sealed with
their shard: its commit record has their checksums, and they are in place before it is. `clip_retrieval.read_folder`
reads them.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests import storage
from manifests.commit import FileStats, describe_file, shard_name
from manifests.embeddings.keys import vector_array, vectors
from manifests.errors import SUCCESS, StorageError

FOLDER = "_run/clip"

#: The column in which embeddings travel to the shard: fixed-size lists of float16, null where there is none.
COLUMN = "clip_embeds"

#: Columns of the index that go into the metadata.
_OF_THE_INDEX = ("caption", "key", "id", "image_index", "task", "sha256")

#: Rows of a row group.
_GROUP_ROWS = 10_000

METADATA = pa.schema(
    [
        pa.field("image_path", pa.string(), metadata={"description": "member of the shard's tar"}),
        *(pa.field(name, pa.int32() if name == "image_index" else pa.string()) for name in _OF_THE_INDEX),
    ]
)


def names(shard: int) -> tuple[str, str]:
    """A shard's two files, under the output: vectors, metadata."""
    number = shard_name(shard)
    return f"{FOLDER}/img_emb/img_emb_{number}.npy", f"{FOLDER}/metadata/metadata_{number}.parquet"


def unit(vector: npt.NDArray[Any] | None) -> npt.NDArray[np.float16] | None:
    """A vector of CLIP's as it is kept; None where it has no direction, or something in it is no number."""
    if vector is None:
        return None
    exact = vector.astype(np.float64)
    length = float(np.linalg.norm(exact))
    return (exact / length).astype(np.float16) if np.isfinite(length) and length > 0 else None


def column_of(vectors_by_row: Mapping[int, npt.NDArray[np.float16] | None], count: int) -> pa.Array | None:
    """COLUMN of so many rows; None where no row has a vector, and nobody knows how long one is."""
    found = {i: vector for i, vector in vectors_by_row.items() if vector is not None}
    if not found:
        return None
    matrix = np.zeros((count, len(next(iter(found.values())))), np.float16)
    for i, vector in found.items():
        matrix[i] = vector
    return vector_array(matrix, np.array([i not in found for i in range(count)]))


def read(output_url: str, shard: int) -> tuple[pa.Table, npt.NDArray[np.float16]]:
    """What is kept of a shard: METADATA, and the vectors (rows, width).

    Raises:
        FileNotFoundError: it has none, or one of the two files is gone.
        StorageError: the files cannot be read, or do not fit together.
    """
    vector_url, metadata_url = (storage.join(output_url, name) for name in names(shard))
    try:
        matrix: npt.NDArray[np.float16] = np.load(io.BytesIO(storage.read_bytes(vector_url)), allow_pickle=False)
        with storage.open_arrow(metadata_url) as source:
            metadata = pq.ParquetFile(source).read(columns=METADATA.names)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{vector_url} and its metadata cannot be read: {error}") from error
    if matrix.ndim != 2 or matrix.dtype != np.float16 or len(matrix) != metadata.num_rows:
        raise StorageError(
            f"{vector_url} holds {matrix.dtype} {matrix.shape}, and its metadata {metadata.num_rows} rows; they must "
            "be as many rows of float16"
        )
    return metadata, matrix


class Kept:
    """What is kept of a shard, to be sealed anew with it.

    Raises:
        StorageError: it cannot be read.
    """

    def __init__(self, output_url: str, shard: int) -> None:
        try:
            metadata, self._matrix = read(output_url, shard)
        except FileNotFoundError as error:
            raise StorageError(f"{error.filename or error} is gone") from error
        self._places = {key: place for place, key in enumerate(metadata["key"].to_pylist())}

    def of(self, keys: Sequence[str]) -> pa.Array:
        """COLUMN of some samples."""
        missing = np.array([key not in self._places for key in keys])
        return vector_array(self._matrix[[self._places.get(key, 0) for key in keys]], missing)


class ClipFiles:
    """Builds the two files of a shard in a local folder; memory holds one part.

    Args:
        image_format: suffix of the images in the tar.
    """

    def __init__(self, shard: int, folder: str, image_format: str) -> None:
        self._names, self._suffix = names(shard), image_format
        self._vectors, self._metadata = (os.path.join(folder, os.path.basename(name)) for name in self._names)
        self._raw, self._writer = self._vectors + ".raw", pq.ParquetWriter(self._metadata, METADATA, compression="zstd")
        self._waiting = METADATA.empty_table()
        self._rows = self._width = 0

    def add(self, records: pa.Table, column: pa.ChunkedArray | None) -> None:
        """Append the images of a part.

        Args:
            records: columns of the index.
            column: their embeddings; None where the part has none.
        """
        if column is None or column.null_count == len(column):
            return
        there = pc.and_(column.is_valid(), pc.equal(records["status"], SUCCESS))
        kept = records.filter(there)
        matrix = vectors(column.filter(there))
        with open(self._raw, "ab") as file:
            file.write(np.ascontiguousarray(matrix, np.float16).data)
        paths = pa.array([f"{key}.{self._suffix}" for key in kept["key"].to_pylist()], pa.string())
        columns = [paths, *(kept[name].cast(METADATA.field(name).type) for name in _OF_THE_INDEX)]
        self._waiting = pa.concat_tables([self._waiting, pa.table(columns, schema=METADATA)])
        self._rows, self._width = self._rows + kept.num_rows, matrix.shape[1]
        while self._waiting.num_rows >= _GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        """Write a row group: whatever pieces a shard comes in, its files are the same."""
        self._writer.write_table(self._waiting.slice(0, _GROUP_ROWS).combine_chunks())
        self._waiting = self._waiting.slice(_GROUP_ROWS)

    def close(self) -> tuple[FileStats, ...]:
        """Finish the files; what the commit record says of them, nothing where no row had an embedding."""
        if self._waiting.num_rows:
            self._flush()
        self._writer.close()
        if not self._rows:
            os.unlink(self._metadata)
            return ()
        header = {"descr": "<f2", "fortran_order": False, "shape": (self._rows, self._width)}
        with open(self._vectors, "wb") as target, open(self._raw, "rb") as source:
            np.lib.format.write_array_header_1_0(target, header)  # type: ignore[no-untyped-call]
            shutil.copyfileobj(source, target)
        os.unlink(self._raw)
        files = zip((self._vectors, self._metadata), self._names, strict=True)
        return tuple(describe_file(path, name) for path, name in files)
