"""The rows of a selection with their images, a few at a time, smaller where that is asked for."""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from jobs.exporting.selection import Selection
from jobs.output.catalog import read_table
from jobs.output.tar_members import TarMembers, open_members
from manifests.commit import ShardStats
from manifests.config import RunConfig
from manifests.records import RECORD_NAMES
from workers.stages.encode import encode_image

#: Rows whose images are in memory together, and how many of them are read at the same time.
PIECE, READERS = 32, 8

#: Tars whose places are remembered; of a tar that is as good as two numbers for each image that was read.
_OPEN = 64

#: Of a smaller image, what the run had made; the columns without `original_` tell of the file that is exported.
ORIGINALS = ("width", "height", "sha256")


class Rows:
    """Reads rows of an output, all columns of the index and the image.

    Args:
        output: where it lies.
        stats: of its sealed shards.
        config: it was made with.
        resize: pixels of the shorter side of an image; None leaves the files as they are.
    """

    def __init__(self, output: str, stats: Mapping[int, ShardStats], config: RunConfig, resize: int | None) -> None:
        self._output, self._stats, self._config, self._resize = output, stats, config, resize
        self._tars: OrderedDict[int, TarMembers] = OrderedDict()

    def read(self, part: Selection) -> Iterator[pa.Table]:
        """The rows of a part in its order, PIECE at a time.

        Returns:
            Tables of the index's columns and `encoded` (large_binary), the image file.

        Raises:
            StorageError: an index or a tar cannot be read.
        """
        records = self._records(part)
        with ThreadPoolExecutor(READERS) as pool:
            for first in range(0, len(part), PIECE):
                piece = records.slice(first, PIECE)
                shards = part.shards[first : first + PIECE].tolist()
                keys = piece["key"].to_pylist()
                # Opened here, one after the other: the pool only reads.
                tars = [self._tar(shard) for shard in shards]
                files = list(pool.map(TarMembers.read, tars, keys))
                if self._resize is not None:
                    piece, files = self._smaller(piece, files, pool)
                yield piece.append_column("encoded", pa.array(files, pa.large_binary()))

    def _records(self, part: Selection) -> pa.Table:
        """Of each shard the rows are read once, then put in the order of the part."""
        tables, places = [], []
        for shard in np.unique(part.shards):
            here = np.flatnonzero(part.shards == shard)
            here = here[np.argsort(part.rows[here], kind="stable")]
            tables.append(read_table(self._output, int(shard), part.rows[here].astype(np.int64)))
            places.append(here)
        # Columns that only some shards have, such as scores, are null elsewhere.
        table = pa.concat_tables(tables, promote_options="default")
        return table.take(pa.array(np.argsort(np.concatenate(places))))

    def _tar(self, shard: int) -> TarMembers:
        if shard not in self._tars:
            self._tars[shard] = open_members(self._output, self._stats[shard], self._config.image_format)
            if len(self._tars) > _OPEN:
                self._tars.popitem(last=False)
        self._tars.move_to_end(shard)
        return self._tars[shard]

    def _smaller(self, piece: pa.Table, files: list[bytes], pool: ThreadPoolExecutor) -> tuple[pa.Table, list[bytes]]:
        assert self._resize is not None
        records = piece.select([name for name in RECORD_NAMES if name in piece.column_names]).to_pylist()
        made = list(
            pool.map(lambda file, row: resized(file, row, int(self._resize or 0), self._config), files, records)
        )
        for name in ORIGINALS:
            place = piece.schema.get_field_index(name)
            column = piece.schema.field(name)
            values = pa.array([size[name] for _, size in made], column.type)
            piece = piece.append_column(f"original_{name}", piece.column(place)).set_column(place, column, values)
        return piece, [file for file, _ in made]


def resized(file: bytes, row: Mapping[str, Any], side: int, config: RunConfig) -> tuple[bytes, dict[str, Any]]:
    """An image whose shorter side has so many pixels, never more than it had; in the same format, with its record.

    Returns:
        The file, and its width, height and sha256.
    """
    with Image.open(io.BytesIO(file)) as image:
        scale = min(1.0, side / min(image.size))
        width, height = (max(1, round(scale * pixels)) for pixels in image.size)
        # Antialiased, as the measures of image quality want it.
        small = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    data = encode_image(small, {**row, "width": width, "height": height}, config)
    return data, {"width": width, "height": height, "sha256": hashlib.sha256(data).hexdigest()}
