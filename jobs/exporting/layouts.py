"""The layouts of an export: which files a part of its rows becomes. A file is written whole or not at all.

    folder        KEY.png …, metadata.parquet (`file_name`, then the index's columns, seeds as digits): an ImageFolder
    huggingface   data/train-00000-of-00012.parquet (`image`, then the index's columns), README.md, samples/
    webdataset    00000.tar, 00000.parquet, 00000_stats.json …, as the output itself

A layout is a class with two methods: `write` makes the files of a part from its pieces, `finish` what belongs to all
parts. Both may be done again after a kill, and write the same bytes.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.exporting.rows import READERS
from jobs.exporting.target import FOLDER, Contents
from manifests import commit, storage
from manifests.config import RunConfig
from manifests.records import IMAGE_TYPE
from workers.stages.shards import build_shard

#: Rows of a row group with images; what the Hub's viewer and streaming readers want.
_ROW_GROUP = 100

#: What `datasets` reads of a schema.
_IMAGE_FEATURE = {"info": {"features": {"image": {"_type": "Image"}}}}


class Layout(Protocol):
    """Writes the parts of an export."""

    def write(self, file: int, files: int, pieces: Iterator[pa.Table]) -> Contents:
        """Make the files of part `file` of `files`, whose rows with `encoded` come in pieces."""

    def finish(self, files: int) -> None:
        """Make what belongs to all parts, when all of them are written."""


class Folder:
    """Image files in one folder, and a table beside them."""

    def __init__(self, url: str, config: RunConfig) -> None:
        self._url, self._ending = url, f".{config.image_format}"

    def write(self, file: int, files: int, pieces: Iterator[pa.Table]) -> Contents:
        """The images, and their rows aside."""
        counted = _Counted(pieces)
        with storage.writing(self._rows(file)) as sink, _Parquet(sink) as writer, ThreadPoolExecutor(READERS) as pool:
            for piece in counted:
                names = [f"{key}{self._ending}" for key in piece["key"].to_pylist()]
                urls = [storage.join(self._url, name) for name in names]
                list(pool.map(storage.write_atomic, urls, piece["encoded"].to_pylist()))
                rows = _digits(piece.drop_columns(["encoded"]))
                writer.write(rows.add_column(0, "file_name", pa.array(names, pa.string())))
        return counted.contents

    def finish(self, files: int) -> None:
        """The rows of all parts become one table, row group by row group."""
        table = storage.join(self._url, "metadata.parquet")
        if not storage.exists(table):  # else a start that was killed has made it, and begun to clear up
            with storage.writing(table) as sink, _Parquet(sink) as writer:
                for file in range(files):
                    with storage.open_arrow(self._rows(file)) as source:
                        for batch in pq.ParquetFile(source).iter_batches():
                            writer.write(pa.Table.from_batches([batch]))
        for file in range(files):
            storage.remove(self._rows(file))

    def _rows(self, file: int) -> str:
        return storage.join(self._url, FOLDER, f"rows-{file:05d}.parquet")


def _digits(rows: pa.Table) -> pa.Table:
    """Columns of uint64 as text: the ImageFolder of `datasets` fails above 2**63, where half of the seeds are."""
    for place, column in enumerate(rows.schema):
        if pa.types.is_uint64(column.type):
            text = column.with_type(pa.string())
            rows = rows.set_column(place, text, rows.column(place).cast(pa.string()))
    return rows


class HuggingFace:
    """Parquet with the images inside, as the Hub shows and `datasets` streams it; the card is in card.py."""

    def __init__(self, url: str, config: RunConfig) -> None:
        self._url, self._ending = url, f".{config.image_format}"

    def write(self, file: int, files: int, pieces: Iterator[pa.Table]) -> Contents:
        """One Parquet file."""
        counted = _Counted(pieces)
        url = storage.join(self._url, f"data/train-{file:05d}-of-{files:05d}.parquet")
        with (
            storage.writing(url) as sink,
            _Parquet(sink, {b"huggingface": json.dumps(_IMAGE_FEATURE).encode()}) as writer,
        ):
            for piece in counted:
                paths = [f"{key}{self._ending}" for key in piece["key"].to_pylist()]
                image = pa.StructArray.from_arrays(
                    [piece["encoded"].combine_chunks().cast(pa.binary()), pa.array(paths, pa.string())],
                    fields=list(IMAGE_TYPE),
                )
                writer.write(piece.drop_columns(["encoded"]).add_column(0, "image", image))
        return counted.contents

    def finish(self, files: int) -> None:
        """Its parts stand for themselves."""


class WebDataset:
    """Shards as those of the output, of the rows that were chosen."""

    def __init__(self, url: str, config: RunConfig) -> None:
        self._url, self._config = url, config

    def write(self, file: int, files: int, pieces: Iterator[pa.Table]) -> Contents:
        """One shard, its stats last."""
        counted = _Counted(pieces)
        with storage.temporary_folder("export-") as folder:
            stats = build_shard(file, iter(counted), folder, self._config)
            local = [os.path.join(folder, file.name) for file in filter(None, (stats.tar, stats.parquet))]
            storage.put_together(local, self._url)
        commit.write_stats(self._url, stats)
        return counted.contents

    def finish(self, files: int) -> None:
        """Its parts stand for themselves."""


LAYOUTS: Mapping[str, Callable[[str, RunConfig], Layout]] = {
    "folder": Folder,
    "huggingface": HuggingFace,
    "webdataset": WebDataset,
}


class _Counted:
    """Passes pieces on and counts what is in them."""

    def __init__(self, pieces: Iterator[pa.Table]) -> None:
        self._pieces = pieces
        self.contents = Contents()

    def __iter__(self) -> Iterator[pa.Table]:
        for piece in self._pieces:
            rows = piece.select(["task", "width", "height", "steps", "guidance_scale"]).to_pylist()
            size = sum(len(file.as_buffer()) for file in piece["encoded"])
            self.contents += Contents(images=piece.num_rows, bytes=size, kinds=Counter(map(_kind, rows)))
            yield piece


def _kind(row: Mapping[str, Any]) -> str:
    return f"{row['task']}, {row['width']} x {row['height']}, {row['steps']} steps, guidance {row['guidance_scale']:g}"


class _Parquet:
    """A Parquet file whose schema is that of the first rows, in row groups of some."""

    def __init__(self, sink: Any, metadata: Mapping[bytes, bytes] | None = None) -> None:
        self._sink, self._metadata = sink, dict(metadata or {})
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> _Parquet:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._writer is not None:
            if kind is None:
                self._flush(1)
            self._writer.close()

    def write(self, rows: pa.Table) -> None:
        """Append rows, which must have the columns of the first ones."""
        rows = rows.replace_schema_metadata(self._metadata)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._sink, rows.schema, compression="zstd")
        self._waiting.append(rows)
        self._flush(_ROW_GROUP)

    def _flush(self, least: int) -> None:
        """Write row groups while there are so many rows."""
        assert self._writer is not None
        while sum(table.num_rows for table in self._waiting) >= least:
            whole = pa.concat_tables(self._waiting)
            self._writer.write_table(whole.slice(0, _ROW_GROUP).combine_chunks())
            self._waiting = [whole.slice(_ROW_GROUP)] if whole.num_rows > _ROW_GROUP else []
