"""Single images out of a shard's tar, found by reading a few ranges: nothing is unpacked, or walked over before.

The index says which images a tar holds and in which order, but not where. So a place is guessed from those that are
known, the next header behind it is read, and that is one more place that is known. Images that follow each other are
one read each, because the end of one tells where the next one begins.
"""

from __future__ import annotations

import bisect
import tarfile
import threading
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from manifests import storage
from manifests.commit import ShardStats, index_name, shard_name
from manifests.errors import SUCCESS, StorageError, first_line

_BLOCK = tarfile.BLOCKSIZE

#: Read at once at least, and at most while a header is looked for.
_LEAST, _MOST = 16 << 10, 4 << 20

#: So many images are walked over rather than guessed past.
_NEAR = 4


class _Header(NamedTuple):
    """A member: its name, where its bytes begin, how many there are, and where the next header is."""

    name: str
    start: int
    size: int
    end: int


def open_members(output: str, stats: ShardStats, image_format: str) -> TarMembers:
    """The images of a sealed shard; reads the keys of its index.

    Raises:
        StorageError: it has none, or its index cannot be read.
    """
    if stats.tar is None:
        raise StorageError(f"{output}: shard {shard_name(stats.shard)} has no images")
    try:
        with storage.open_arrow(storage.join(output, index_name(stats.shard))) as source:
            keys = pq.read_table(source, columns=["key"], filters=[("status", "=", SUCCESS)])["key"].to_pylist()
    except (FileNotFoundError, pa.ArrowException) as error:
        raise StorageError(f"{output}/{index_name(stats.shard)} cannot be read ({first_line(error)})") from error
    return TarMembers(storage.join(output, stats.tar.name), stats.tar.bytes, keys, f".{image_format}")


class TarMembers:
    """The images of one tar. May be used by several threads.

    Args:
        url: of the tar.
        size: its bytes.
        keys: of its images, in the order of the index.
        ending: of an image's name, with the dot.
    """

    def __init__(self, url: str, size: int, keys: Sequence[str], ending: str) -> None:
        self._url, self._size, self._ending = url, size, ending
        self._ranks = {key: rank for rank, key in enumerate(keys)}
        #: Ranks whose header is known to lie at a place, both ascending; the last is the end of the tar.
        self._known, self._places = [0, len(keys)], [0, size]
        self._sample = max(_LEAST, size // max(1, len(keys)) * 5 // 4)
        self._lock = threading.Lock()

    def read(self, key: str) -> bytes:
        """The bytes of an image file.

        Raises:
            StorageError: the tar has no such image, is damaged, or cannot be read.
        """
        if key not in self._ranks:
            raise StorageError(f"{self._url} has no image of {key}")
        with self._lock:
            try:
                place = self._place(self._ranks[key])
                return self._take(self._ranks[key], place)
            except FileNotFoundError as error:
                raise StorageError(f"{self._url} is not there") from error
            except tarfile.TarError as error:
                raise StorageError(f"{self._url} is damaged ({error}); jobs/verify.py says more") from error

    def _place(self, rank: int) -> int:
        """Where the header of an image is."""
        while True:
            before = bisect.bisect_right(self._known, rank) - 1
            low_rank, high_rank = self._known[before : before + 2]
            low, high = self._places[before : before + 2]
            if rank - low_rank <= _NEAR:
                return self._walk(low_rank, low, rank)
            guess, stop = low + (high - low) * (rank - low_rank) // (high_rank - low_rank), high
            # Halved until an image begins behind it.
            while (found := self._next_image(guess, stop)) is None:
                guess, stop = low + (guess - low) // 2, guess
                if guess - low < _BLOCK:
                    return self._walk(low_rank, low, rank)
            self._remember(*found)

    def _walk(self, rank: int, place: int, target: int) -> int:
        """Go over members one by one, from an image that is known."""
        while rank < target:
            place = self._header(place).end
            found = self._rank(self._header(place).name)
            if found is not None:
                rank = found
                self._remember(rank, place)
        return place

    def _take(self, rank: int, place: int) -> bytes:
        """The image at a place; where the next one begins is remembered."""
        data = storage.read_range(self._url, place, min(self._size, place + self._sample))
        header = _parse(data, 0, place)
        if self._rank(header.name) != rank:
            raise tarfile.ReadError(f"it has {header.name} where another image should be")
        if len(data) < header.end - place:
            data += storage.read_range(self._url, place + len(data), min(self._size, header.end + _LEAST))
        following = header.end
        while following + _BLOCK <= place + len(data):
            try:
                member = _parse(data, following - place, following)
            except tarfile.TarError:
                break  # The end of the tar.
            if (found := self._rank(member.name)) is not None:
                self._remember(found, following)
                break
            following = member.end
        return data[header.start - place : header.start - place + header.size]

    def _next_image(self, place: int, stop: int) -> tuple[int, int] | None:
        """Rank and place of the first image whose header lies in a range; None where there is none."""
        place, length = place // _BLOCK * _BLOCK, self._sample
        while place < stop:
            data = storage.read_range(self._url, place, min(stop, place + length))
            for at in range(0, len(data) - _BLOCK + 1, _BLOCK):
                if data[at + 257 : at + 262] != b"ustar":
                    continue
                try:
                    name = _parse(data, at, place + at).name
                except tarfile.TarError:
                    continue  # Bytes of an image that look like it.
                if (rank := self._rank(name)) is not None:
                    return rank, place + at
            place += length
            length = min(2 * length, _MOST)
        return None

    def _header(self, place: int) -> _Header:
        return _parse(storage.read_range(self._url, place, place + _BLOCK), 0, place)

    def _rank(self, name: str) -> int | None:
        """Of an image's name; None for another member."""
        return self._ranks.get(name.removesuffix(self._ending)) if name.endswith(self._ending) else None

    def _remember(self, rank: int, place: int) -> None:
        at = bisect.bisect_left(self._known, rank)
        if self._known[at] != rank:
            self._known.insert(at, rank)
            self._places.insert(at, place)


def _parse(data: bytes, at: int, place: int) -> _Header:
    info = tarfile.TarInfo.frombuf(data[at : at + _BLOCK], "utf-8", "surrogateescape")
    start = place + _BLOCK
    return _Header(info.name, start, info.size, start + -(-info.size // _BLOCK) * _BLOCK)
