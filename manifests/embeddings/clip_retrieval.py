"""Embeddings in clip-retrieval's layout, which its indexes, and tools beside it, read and write.

    FOLDER/img_emb/img_emb_0.npy                     image_embeds, (rows, width)
    FOLDER/negative_img_emb/negative_img_emb_0.npy   negative_image_embeds; ours, others do not look there
    FOLDER/metadata/metadata_0.parquet               one row per embedding: caption, and the store's other columns;
                                                     the key as hex digits

Files of the same number belong together. Foreign folders have `img_emb` and `metadata` only: their rows have no key,
so they cannot be put into the store, but a manifest can be made of them, whose rows bring their embeddings along.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manifests import storage
from manifests.embeddings.compaction import Pruned, look, part_names, right_tables
from manifests.embeddings.keys import KEY_TYPE, VECTORS, Array, part_schema, vector_array, vectors
from manifests.embeddings.store import EmbeddingStore
from manifests.errors import UsageError
from manifests.records import MANIFEST_MARK

#: Rows of one file.
FILE_ROWS = 65_536

#: Rows of a manifest's row group.
_GROUP_ROWS = 4096

#: Metadata that says nothing to a manifest.
_OF_THE_STORE = ("key", "caption", "checkpoint", "conditions", "prompt_truncated", "image_index")

_POSITIVE, _NEGATIVE, _METADATA = "img_emb", "negative_img_emb", "metadata"
_FILE = re.compile(r"^(img_emb|negative_img_emb|metadata)_(\d+)\.(?:npy|parquet)$")


def export_store(store_url: str, folder: str, checkpoint: str | None = None, overwrite: bool = False) -> int:
    """Write the store's embeddings into a folder; returns how many.

    Args:
        checkpoint: fingerprint; only what this one has made.
        overwrite: embeddings in this layout that lie there are replaced, all of them.

    Raises:
        UsageError: the store holds embeddings of several kinds, which do not fit one matrix, or none; or the folder
            holds embeddings in this layout.
    """
    names = part_names(store_url)
    kinds = {origin for info in look(store_url, names) if info is not None for origin in info.rows}
    kinds = {origin for origin in kinds if checkpoint in (None, origin[0])}
    if len({origin[1:] for origin in kinds}) != 1:
        found = ", ".join(f"{name} {dtype} x {width}" for name, dtype, width in sorted(kinds)) or "nothing"
        raise UsageError(f"{store_url} holds {found}; choose embeddings of one dtype and width with --checkpoint")
    before = [url for kind in (_POSITIVE, _NEGATIVE, _METADATA) for url in _files(folder, kind)]
    if before and not overwrite:
        raise UsageError(f"{before[0]} is there already; export into another folder, or say --overwrite")
    number = rows = 0
    for table in _chunks(store_url, names, checkpoint):
        _write(folder, number, table)
        number, rows = number + 1, rows + table.num_rows
    for kind in (_POSITIVE, _NEGATIVE, _METADATA):
        # A larger export that was here before would be read as the end of this one.
        for url in _files(folder, kind)[number:]:
            storage.remove(url)
    return rows


def _files(folder: str, kind: str) -> list[str]:
    """Files of this layout under a folder, by their numbers."""
    matches = (_FILE.match(name) for name in storage.list_names(storage.join(folder, kind)))
    found = sorted((int(match[2]), match[0]) for match in matches if match and match[1] == kind)
    return [storage.join(folder, kind, name) for _, name in found]


def _chunks(store_url: str, names: Collection[str], checkpoint: str | None) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    for name in names:
        for table in right_tables(store_url, name, Pruned()):
            if checkpoint is not None:
                table = table.filter(
                    pa.array([value == checkpoint for value in table.column("checkpoint").to_pylist()])
                )
            if not table.num_rows:  # perhaps of another dtype
                continue
            waiting.append(table)
            if sum(one.num_rows for one in waiting) >= FILE_ROWS:
                yield pa.concat_tables(waiting)
                waiting = []
    if sum(one.num_rows for one in waiting):
        yield pa.concat_tables(waiting)


def _write(folder: str, number: int, table: pa.Table) -> None:
    for kind, name in zip((_POSITIVE, _NEGATIVE), VECTORS, strict=True):
        sink = io.BytesIO()
        np.save(sink, vectors(table.column(name)), allow_pickle=False)
        storage.write_atomic(storage.join(folder, kind, f"{kind}_{number}.npy"), sink.getvalue())
    keys = pa.array([key.hex() for key in table.column("key").to_pylist()], pa.string())
    metadata = table.drop_columns(["key", "checksum", *VECTORS])
    metadata = metadata.append_column("caption", metadata.column("prompt")).append_column("key", keys)
    buffer = pa.BufferOutputStream()
    pq.write_table(metadata, buffer, compression="zstd")
    url = storage.join(folder, _METADATA, f"{_METADATA}_{number}.parquet")
    storage.write_atomic(url, buffer.getvalue().to_pybytes())


def read_folder(folder: str) -> Iterator[tuple[pa.Table, Array, Array | None]]:
    """The files of a folder in order: metadata, image embeddings, negative ones where there are any.

    Raises:
        UsageError: the folder is not in this layout, or its files do not fit together.
    """
    names = storage.list_names(storage.join(folder, _POSITIVE))
    matches = (re.match(rf"^{_POSITIVE}_(\d+)\.npy$", name) for name in names)
    numbers = sorted((match.group(1) for match in matches if match), key=int)
    if not numbers:
        raise UsageError(f"{folder} has no {_POSITIVE}/{_POSITIVE}_0.npy; give a folder in clip-retrieval's layout")
    negative_names = set(storage.list_names(storage.join(folder, _NEGATIVE)))
    for number in numbers:
        positive = _load(storage.join(folder, _POSITIVE, f"{_POSITIVE}_{number}.npy"))
        url = storage.join(folder, _METADATA, f"{_METADATA}_{number}.parquet")
        try:
            with storage.open_arrow(url) as source:
                metadata = pq.ParquetFile(source).read()
        except (OSError, pa.ArrowException) as error:
            raise UsageError(f"{url} cannot be read ({error}); every .npy file needs its metadata") from error
        name = f"{_NEGATIVE}_{number}.npy"
        negative = _load(storage.join(folder, _NEGATIVE, name)) if name in negative_names else None
        for what, rows in (
            ("metadata", metadata.num_rows),
            ("negatives", len(positive if negative is None else negative)),
        ):
            if rows != len(positive):
                raise UsageError(f"{folder}: file {number} has {len(positive)} embeddings, but {rows} rows of {what}")
        yield metadata, positive, negative


def _load(url: str) -> Array:
    try:
        array: Array = np.load(io.BytesIO(storage.read_bytes(url)), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{url} cannot be read as a matrix ({error})") from error
    if array.ndim != 2 or array.dtype not in (np.float16, np.float32):
        raise UsageError(f"{url} holds {array.dtype} {array.shape}; it must be a float16 or float32 matrix")
    return array


def import_store(folder: str, store_url: str) -> int:
    """Put an exported folder into a store, under the keys that it was exported with; returns how many rows.

    Raises:
        UsageError: the folder is not one that `export_store` has written.
    """
    store, rows = EmbeddingStore(store_url), 0
    for metadata, positive, negative in read_folder(folder):
        if negative is None or "key" not in metadata.column_names:
            raise UsageError(
                f"{folder} was not exported from an embedding store: it has no keys or no {_NEGATIVE}; make a manifest "
                "of it with --manifest, whose rows bring their embeddings along"
            )
        if positive.dtype != negative.dtype or positive.shape != negative.shape:
            raise UsageError(f"{folder}: {_POSITIVE} and {_NEGATIVE} have different types or widths")
        schema = part_schema(vector_array(positive).type)
        columns = {
            "key": pa.array([bytes.fromhex(key) for key in metadata.column("key").to_pylist()], KEY_TYPE),
            "checksum": pa.nulls(len(positive), KEY_TYPE),
            **dict(zip(VECTORS, (vector_array(positive), vector_array(negative)), strict=True)),
        }
        finite = np.isfinite(positive).all(axis=1) & np.isfinite(negative).all(axis=1)
        for field in schema:
            if field.name not in columns:
                there = field.name in metadata.column_names
                columns[field.name] = metadata.column(field.name) if there else pa.nulls(len(positive), field.type)
        table = pa.table([columns[name] for name in schema.names], names=schema.names).cast(schema)
        table = table.filter(pa.array(finite))
        if table.num_rows:
            store.add(table)
        rows += table.num_rows
    return rows


def import_manifest(folder: str, manifest_url: str) -> int:
    """Make a manifest of a folder, each row with its embedding; returns how many rows.

    Other columns of the metadata travel along. Rows are text2img with the caption as prompt, because the decoder reads
    that too.
    """
    rows = 0
    with storage.temporary_folder("manifest-") as local, ExitStack() as stack:
        path = os.path.join(local, "manifest.parquet")
        writer: Any = None
        for metadata, positive, negative in read_folder(folder):
            table = _requests(metadata, positive, negative)
            if writer is None:
                table = table.replace_schema_metadata(MANIFEST_MARK)
                writer = stack.enter_context(pq.ParquetWriter(path, table.schema, compression="zstd"))
            if table.schema.names != writer.schema.names:
                raise UsageError(f"{folder}: its files have different columns; convert them one folder at a time")
            writer.write_table(table.cast(writer.schema), row_group_size=_GROUP_ROWS)
            rows += table.num_rows
        stack.close()
        storage.put_atomic(path, manifest_url)
    return rows


def _requests(metadata: pa.Table, positive: Array, negative: Array | None) -> pa.Table:
    """Rows of a manifest."""
    names = metadata.column_names
    text = next((name for name in ("prompt", "caption") if name in names), None)
    prompts = pa.nulls(len(positive), pa.string()) if text is None else metadata.column(text).cast(pa.string())
    columns = {"prompt": prompts.fill_null(""), "image_embeds": vector_array(positive)}
    if "task" not in names:
        columns["task"] = pa.array(["text2img"] * len(positive))
    if negative is not None:
        columns["negative_image_embeds"] = vector_array(negative)
    kept = [name for name in names if name not in columns and name not in _OF_THE_STORE]
    return pa.table({**columns, **{name: metadata.column(name) for name in kept}})
