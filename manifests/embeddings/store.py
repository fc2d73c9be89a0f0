"""The embedding store: the prior's answers, kept under their keys in plain Parquet files on any storage.

    STORE/parts/{name}.parquet           rows in the order they were made (columns: manifests/embeddings/keys.py); zstd,
                                         row groups of 256 rows
    STORE/index/{name}-{rows}.parquet    where each key lies (manifests/embeddings/key_index.py)

A part is written whole under a name made of its rows' checksums, its index file after it: killed between the two, the
part is not found and nothing is wrong; written twice or by two writers at once, it is the same file. Nothing is ever
changed in place. What is read is compared with what was asked for and with its checksum, row by row; a row that is
not right counts as unknown, so it is computed again and stored in a new part.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from manifests import storage
from manifests.embeddings import key_index
from manifests.embeddings.key_index import Positions
from manifests.embeddings.keys import VECTORS, Array, Origin, part_schema, right_rows, vectors, with_checksums
from manifests.errors import StorageError, UsageError

PARTS_FOLDER = "parts"

PART_FILE = re.compile(r"^([0-9a-f]{32})\.parquet$")

#: Rows of a row group: what is decoded at least for one row, 0.8 MB for float16 of the real width.
GROUP_ROWS = 256

#: Parts read at the same time.
PARTS_AT_ONCE = 8

#: Index files beyond so many are merged when a run ends; each costs a lookup one read.
MANY_INDEX_FILES = 32

#: Larger index files are left as they are then: a run should not end with writing gigabytes.
SMALL_INDEX_ROWS = 4_000_000


@dataclass(frozen=True)
class Known:
    """What a lookup found.

    Attributes:
        found: bool (rows,).
        image_embeds, negative_image_embeds: (rows, width); zeros where not found.
        prompt_truncated: bool (rows,).
    """

    found: npt.NDArray[np.bool_]
    image_embeds: Array
    negative_image_embeds: Array
    prompt_truncated: npt.NDArray[np.bool_]


class EmbeddingStore:
    """A store at a location; holds nothing but one listing of its index files, which it takes at the first lookup."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._files: dict[str, int] | None = None

    @property
    def index_files(self) -> dict[str, int]:
        """Names of the index files and their entries."""
        if self._files is None:
            self._files = key_index.index_files(self.url)
        return self._files

    def add(self, rows: pa.Table) -> str:
        """Store rows in one part; returns its name.

        Args:
            rows: at least one, columns of `part_schema`; checksums are filled in.

        Raises:
            StorageError: the storage refused.
        """
        rows = with_checksums(rows.combine_chunks())
        name = hashlib.blake2b(b"".join(rows.column("checksum").to_pylist()), digest_size=16).hexdigest()
        storage.write_atomic(part_url(self.url, name), part_bytes(rows))
        key_index.write_part_index(self.url, name, rows.column("key").to_pylist())
        self._files = None
        return name

    def has(self, keys: Sequence[bytes]) -> npt.NDArray[np.bool_]:
        """Which keys the index knows; what lies under them is not looked at."""
        places = key_index.find(self.url, self.index_files, keys)
        if places.vanished:
            self._files = None
            places = key_index.find(self.url, self.index_files, keys)
        return places.known(len(keys))

    def get(self, keys: Sequence[bytes], origin: Origin) -> Known:
        """The embeddings under these keys: one look into the index for all, one read per part that they lie in.

        Raises:
            StorageError: the storage refused; damaged and foreign files count as unknown instead.
        """
        positive, negative = (np.zeros((len(keys), origin.width), origin.dtype) for _ in VECTORS)
        found = Known(np.zeros(len(keys), bool), positive, negative, np.zeros(len(keys), bool))
        if not self._fill(found, keys, origin):
            # A file is gone because it was merged into another one meanwhile; the new listing knows that one.
            self._files = None
            self._fill(found, keys, origin)
        return found

    def _fill(self, found: Known, keys: Sequence[bytes], origin: Origin) -> bool:
        """Look up what is not found yet; False where a file has vanished."""
        places = key_index.find(self.url, self.index_files, keys)
        whole = not places.vanished
        # The parts with most of the keys come first: where a key lies twice, fewer are opened. What one of them has
        # lost is looked for in the others.
        left = sorted(places.by_part.items(), key=lambda place: (-len(place[1][0]), place[0]))
        with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
            while left:
                taken = found.found.copy()
                reads, later = [], []
                for part, (asked, rows) in left:
                    mine, others = ~taken[asked], taken[asked] & ~found.found[asked]
                    taken[asked] = True
                    if mine.any():
                        reads.append(pool.submit(self._take, found, part, asked[mine], rows[mine], keys, origin))
                    if others.any():
                        later.append((part, (asked[others], rows[others])))
                for read in reads:
                    try:
                        read.result()
                    except FileNotFoundError:
                        whole = False
                left = later
        return whole

    def _take(
        self, found: Known, part: str, asked: Positions, rows: Positions, keys: Sequence[bytes], origin: Origin
    ) -> None:
        for places, table in _read_rows(part_url(self.url, part), rows, part_schema(origin.vector_type)):
            right = right_rows(table, [keys[position] for position in asked[places]])
            here = asked[places][right]
            found.found[here] = True
            found.image_embeds[here], found.negative_image_embeds[here] = (
                vectors(table.column(name))[right] for name in VECTORS
            )
            truncated = table.column("prompt_truncated").fill_null(False).to_numpy()
            found.prompt_truncated[here] = truncated[right]


def check_owned(store_url: str, option: str) -> None:
    """Make sure that a store can be begun at a location, or is there already.

    Args:
        option: what a person says to have it there all the same.

    Raises:
        UsageError: other files lie there, and no part or index file of a store.
        StorageError: the storage refused.
    """
    names = storage.list_names(storage.join(store_url, PARTS_FOLDER))
    if key_index.index_files(store_url) or any(PART_FILE.match(name) for name in names):
        return
    folders = (PARTS_FOLDER, key_index.INDEX_FOLDER)
    others = storage.others_in(store_url, folders)
    others += [f"{name}/{inner}" for name in folders for inner in storage.others_in(storage.join(store_url, name))]
    if others:
        raise UsageError(
            f"{store_url} is no embedding store and not empty: it holds {storage.in_words(others)}; give the store a "
            f"folder of its own, or say {option} to have it beside them"
        )


def tidy_index(store_url: str) -> None:
    """Merge the store's small index files where they have become many.

    Raises:
        StorageError: the storage refused.
    """
    files = key_index.index_files(store_url)
    small = {name for name, rows in files.items() if rows < SMALL_INDEX_ROWS}
    if len(small) > MANY_INDEX_FILES:
        key_index.merge_index(store_url, small)


def part_url(store_url: str, name: str) -> str:
    """Where a part lies."""
    return storage.join(store_url, PARTS_FOLDER, f"{name}.parquet")


def part_bytes(rows: pa.Table) -> bytes:
    """A part as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(
        rows,
        sink,
        compression="zstd",
        row_group_size=GROUP_ROWS,
        # Bytes of the same place in neighbouring floats are alike: smaller, and several times faster to read.
        use_byte_stream_split=[f"{name}.list.element" for name in VECTORS],
        use_dictionary=["checkpoint", "prompt", "negative_prompt", "conditions"],
        write_statistics=False,
        write_page_checksum=True,
    )
    return sink.getvalue()


_READ = ("key", "checksum", "prompt_truncated", *VECTORS)


def _read_rows(url: str, rows: Positions, schema: pa.Schema) -> Iterator[tuple[Positions, pa.Table]]:
    """Rows of a part with the columns `_READ`, as far as they can be read: positions in `rows`, and the rows."""
    try:
        with storage.open_arrow(url) as source:
            file = pq.ParquetFile(source, pre_buffer=True, page_checksum_verification=True)
            if any(name not in file.schema_arrow.names for name in _READ):
                return
            if any(file.schema_arrow.field(name).type != schema.field(name).type for name in _READ):
                return
            starts = np.cumsum([0, *(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))])
            inside = np.flatnonzero(rows < starts[-1])
            group_of = np.searchsorted(starts, rows[inside], "right") - 1
            groups = np.unique(group_of)
            try:
                table = file.read_row_groups(groups.tolist(), columns=list(_READ))
            except (OSError, pa.ArrowException):
                # Something in there is damaged; what is in the other row groups is not.
                for group in groups:
                    places = inside[group_of == group]
                    try:
                        table = file.read_row_group(int(group), columns=list(_READ))
                    except (OSError, pa.ArrowException):
                        continue
                    yield places, table.take(pa.array(rows[places] - starts[group])).combine_chunks()
                return
            sizes = starts[groups + 1] - starts[groups]
            offsets = np.cumsum(sizes) - sizes
            picked = rows[inside] - starts[group_of] + offsets[np.searchsorted(groups, group_of)]
            yield inside, table.take(pa.array(picked)).combine_chunks()
    except (StorageError, FileNotFoundError):
        raise
    except (OSError, pa.ArrowException):
        return
