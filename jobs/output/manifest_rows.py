"""The manifest's rows behind some records: what lay inline in them is nowhere else.

An index tells where a row's inputs came from, not what they were where their bytes lay in the manifest; these are read
from there, where it still is.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from manifests.errors import KandinskyBatchError
from manifests.records import GIVEN_EMBEDDINGS
from manifests.requests import files
from manifests.requests.columns import cast_requests
from manifests.requests.files import Manifest, Piece, SourceFile
from manifests.requests.reading import Reader


@dataclass(frozen=True)
class Given:
    """What only the manifest's row has.

    Attributes:
        columns: `image`, `mask` and `conditions` as the manifest gives them; empty where it is not to be had.
        embeddings: one row with those of GIVEN_EMBEDDINGS that the manifest has; None: it has none.
        trouble: why it is not to be had; "" where it is.
    """

    columns: Mapping[str, Any] = field(default_factory=dict)
    embeddings: pa.Table | None = None
    trouble: str = ""


class ManifestRows:
    """Looks rows up; those of one file cost least in their order. May be used by several threads.

    Args:
        locations: of the manifest, as the run was given them.
        embeddings: of rows that bring some, too.
        budget: bytes of the manifest to decode for it, about; what would cost more is not looked up.
    """

    def __init__(self, locations: Sequence[str], embeddings: bool = False, budget: float = float("inf")) -> None:
        self._locations = locations
        self._embeddings = embeddings
        self._budget = budget
        self._lock = threading.Lock()
        self._manifest: Manifest | None = None
        self._reader: Reader | None = None
        self._trouble = ""
        #: Where the reader stands: file and row.
        self._place = ("", 0)

    def row(self, record: Mapping[str, Any]) -> Given:
        """The row of a record; whatever is wrong with the manifest is the row's trouble."""
        with self._lock:
            try:
                return self._look_up(record)
            except KandinskyBatchError as error:
                trouble = f"that cannot be read ({error})"
                if self._manifest is None:
                    self._trouble = trouble
                return Given(trouble=trouble)

    def _look_up(self, record: Mapping[str, Any]) -> Given:
        if self._trouble:
            return Given(trouble=self._trouble)
        if self._manifest is None:
            self._manifest = files.open_manifest(self._locations)
            extras = pa.schema([one for one in self._manifest.extras if one.name in GIVEN_EMBEDDINGS])
            wanted = extras if self._embeddings and len(extras) else None
            self._reader = Reader(extras=wanted)
            has_some = any(file.inline_bytes or "conditions" in file.columns for file in self._manifest.files)
            if wanted is None and not has_some:
                self._trouble = "the manifest holds none any more"
                return Given(trouble=self._trouble)
        place = record["manifest_row"]
        for file in self._manifest.files:
            if place < file.rows:
                return self._read(file, place, record)
            place -= file.rows
        return Given(trouble=f"that has {self._manifest.rows} rows now")

    def _read(self, file: SourceFile, place: int, record: Mapping[str, Any]) -> Given:
        self._budget -= self._cost(file, place)
        if self._budget < 0:
            return Given(trouble="there is too much before it to read for this")
        assert self._reader is not None
        fragment = self._reader.read((Piece(file.url, place, place + 1, file.constants),))
        self._place = (file.url, place + 1)
        given = cast_requests(fragment.tables).columns
        values = {name: given[name][0].as_py() for name in ("id", "prompt", "image", "mask", "conditions")}
        if values["id"] not in (None, record["id"]) or (values["prompt"] or "") != (record["prompt"] or ""):
            return Given(trouble="its row is another one now")
        return Given(values, fragment.extras)

    def _cost(self, file: SourceFile, place: int) -> float:
        """Bytes that are decoded on the way to a row: from the beginning of its row group, or from where one stands."""
        begin = 0
        for rows, size in file.groups:
            if place < begin + rows:
                stands = self._place[1] if self._place[0] == file.url and self._place[1] <= place else 0
                return (place + 1 - max(begin, stands)) * size / rows
            begin += rows
        return 0.0
