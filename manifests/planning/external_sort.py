"""64-bit hashes of any number of rows, sorted in bounded memory: what is equal comes together.

Hashes with their values are kept in memory up to `RUN_ROWS`, then sorted and written to a temporary file as one run
(16 bytes per row, in TMPDIR). `partitions` reads the same 1/256 of the hash space from all runs and sorts that, so
100 million rows take 1.6 GB of disk and at no time more than some 50 MB of memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from manifests.errors import StorageError

Hashes = npt.NDArray[np.uint64]
Values = npt.NDArray[np.int64]

#: Rows of one run, which are held in memory until it is full.
RUN_ROWS = 1 << 20

#: The hash space is cut by the highest byte.
PARTITIONS = 256
_SHIFT = np.uint64(56)

#: An odd number without pattern; powers of it weigh the bytes of a text.
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 2**64)

#: Bytes of text that are hashed in one go, which takes 40 times as much memory.
_TEXT_BYTES = 1 << 20


class HashRuns:
    """Collects (hash, value) pairs and gives them back sorted by hash, equal ones in the order they came."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Hashes, Values]] = []
        self._rows = 0
        self._file: IO[bytes] | None = None
        #: Of each run on disk: where it begins in the file, and where each partition ends in it.
        self._runs: list[tuple[int, npt.NDArray[np.int64]]] = []

    def add(self, hashes: Hashes, values: Values) -> None:
        """Take in more pairs.

        Raises:
            StorageError: the temporary file has no room.
        """
        if not len(hashes):
            return
        self._waiting.append((hashes, values))
        self._rows += len(hashes)
        if self._rows >= RUN_ROWS:
            self._write_run()

    def partitions(self) -> Iterator[tuple[Hashes, Values]]:
        """All pairs, in `PARTITIONS` pieces of rising hashes; some may be empty."""
        hashes, values, ends = self._sorted()
        for number in range(PARTITIONS):
            parts = [self._read(run, number) for run in self._runs]
            begin, end = (0 if number == 0 else ends[number - 1]), ends[number]
            parts.append((hashes[begin:end], values[begin:end]))
            if len(parts) == 1:
                yield parts[0]
                continue
            merged, merged_values = (np.concatenate(columns) for columns in zip(*parts, strict=True))
            order = _order(merged)
            yield merged[order], merged_values[order]

    def close(self) -> None:
        """Forget everything."""
        self._waiting.clear()
        self._runs.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _sorted(self) -> tuple[Hashes, Values, npt.NDArray[np.int64]]:
        """What is in memory, sorted, and where each partition ends in it."""
        hashes = np.concatenate([*(pair[0] for pair in self._waiting), np.empty(0, np.uint64)])
        values = np.concatenate([*(pair[1] for pair in self._waiting), np.empty(0, np.int64)])
        order = _order(hashes)
        hashes, values = hashes[order], values[order]
        highest = np.arange(PARTITIONS, dtype=np.uint64)
        return hashes, values, np.searchsorted(hashes >> _SHIFT, highest, side="right").astype(np.int64)

    def _write_run(self) -> None:
        hashes, values, ends = self._sorted()
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="ids-")  # noqa: SIM115 - closed by close()
            begin = self._file.seek(0, 2)
            self._file.write(hashes.tobytes())
            self._file.write(values.tobytes())
        except OSError as error:
            raise StorageError(
                f"cannot sort the manifest's ids in {tempfile.gettempdir()}: {error}; free 16 bytes per row there, or "
                "set TMPDIR to a folder with room"
            ) from error
        self._runs.append((begin, ends))
        self._waiting.clear()
        self._rows = 0

    def _read(self, run: tuple[int, npt.NDArray[np.int64]], number: int) -> tuple[Hashes, Values]:
        assert self._file is not None
        start, ends = run
        begin, end = (0 if number == 0 else int(ends[number - 1])), int(ends[number])
        columns = []
        for column in range(2):
            self._file.seek(start + 8 * (column * int(ends[-1]) + begin))
            columns.append(self._file.read(8 * (end - begin)))
        return np.frombuffer(columns[0], np.uint64), np.frombuffer(columns[1], np.int64)


def _order(hashes: Hashes) -> npt.NDArray[np.intp]:
    """Positions by rising hash, equal ones in order."""
    order = np.argsort(hashes)
    ordered = hashes[order]
    # The quick way keeps no order among equal ones, which nearly never are there.
    return np.argsort(hashes, kind="stable") if (ordered[1:] == ordered[:-1]).any() else order


def text_hashes(texts: pa.Array) -> Hashes:
    """A 64-bit hash of each text (pa.string, no nulls), the same in every process.

    A polynomial of the bytes modulo 2**64, computed for many texts at once, with its bits mixed afterwards. It says
    which texts to compare, not which are equal.
    """
    if not len(texts):
        return np.empty(0, np.uint64)
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    if bounds[-1] - bounds[0] > _TEXT_BYTES and len(texts) > 1:
        half = len(texts) // 2
        return np.concatenate([text_hashes(texts[:half]), text_hashes(texts[half:])])
    letters = np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]]
    bounds = bounds - bounds[0]
    powers, inverses = _powers(_BASE, len(letters) + 1), _powers(_INVERSE, len(letters) + 1)
    # Each byte is weighed by its place among all of them; dividing by the weight of the text's first byte makes that
    # its place in the text.
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum((letters + np.uint64(1)) * powers[:-1])])
    mixed = (sums[bounds[1:]] - sums[bounds[:-1]]) * inverses[bounds[:-1]]
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return mixed ^ (mixed >> np.uint64(29))


_known_powers: dict[int, Hashes] = {}


def _powers(base: int, count: int) -> Hashes:
    """`base` to the powers 0 … count - 1, modulo 2**64."""
    if base not in _known_powers or len(_known_powers[base]) < count:
        factors = np.full(max(count, _TEXT_BYTES // 8), base, np.uint64)
        factors[0] = 1
        _known_powers[base] = np.cumprod(factors)
    return _known_powers[base][:count]
