"""The sources of a manifest that are CSV and TSV: which quotes wrap a value, which are part of it, and the rows.

Files that end in .csv are expected to have quotes around values that need them, files that end in .tsv to be written as
they are, which is what most programs do. Each file is looked through first, and read the other way where that is the
only way that fits it; `Quotes` says how that is told. A person who knows better says so (`--quotes`).
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv

from manifests.errors import ManifestError, first_line
from manifests.making.tables import ROWS, Source, Stream, open_unpacked

#: Of a file, read at a time; Arrow keeps some ten times that, and a row must fit in.
_BLOCK_BYTES = 1 << 20

#: Arrow says which row is wrong only when one thread reads.
_READ = pa.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False)

#: What may be said of quotes: `yes`, they wrap values; `no`, they are part of them; `auto`, as the file suggests.
Said = Literal["auto", "yes", "no"]

#: Files of one kind that are named; of more only the number is told.
_NAMED = 3


@dataclass
class Quotes:
    """What a file's quotes look like, read as if they wrapped values.

    Attributes:
        lines: lines that have some.
        malformed: first row in which no writer of such files would have put a quote where one is; None without any.
        needless: values in quotes that need none.
        header: a name of the header is in quotes, as where all texts are.
        unclosed: first line of a value that has no end, from 1; None without any.
        columns: names in the header, as far as delimiters tell.
        merged: rows that run over several lines; `first_merged` is the first of them, with its lines from 1.
        merged_fit: each of the lines of one of these would be a row for itself.
        fits_plainly: all lines have as many delimiters as the header, whatever is in quotes.
    """

    lines: int = 0
    malformed: int | None = None
    needless: int = 0
    header: bool = False
    unclosed: int | None = None
    columns: int = 1
    merged: int = 0
    first_merged: tuple[int, int, int] = (0, 0, 0)
    merged_fit: bool = False
    fits_plainly: bool = True

    def wrap(self, delimiter: str) -> bool:
        """Whether the file is read with quotes around values.

        A TSV file only where a writer of quotes must have made it: every quote is where such a writer puts one, and no
        value has them without need unless the header has them too. A CSV file always, but where that cannot be and the
        other way can.
        """
        sound = self.malformed is None and self.unclosed is None
        if delimiter == ",":
            # Without delimiters every line fits, so the end of an open value may as well have been lost.
            return sound or not self.fits_plainly or (self.unclosed is not None and self.columns == 1)
        return sound and (self.header or not self.needless) and not self.merged_fit


def delimited(urls: Sequence[str], delimiter: str = ",", said: Said = "auto") -> Stream:
    """Rows of files with a header line; every value is text, nothing between two delimiters is null, "" is empty.

    A column that one of the files lacks is null there.

    Args:
        said: of quotes, by the person.

    Raises:
        ManifestError: a file is not UTF-8, a row has more or fewer values than the header, or a quote is never closed.
    """
    seen = {url: look_at(_lines(url), delimiter) for url in urls}
    wraps = {url: quotes.wrap(delimiter) if said == "auto" else said == "yes" for url, quotes in seen.items()}
    for url, quotes in seen.items():
        if wraps[url] and quotes.unclosed is not None:
            raise ManifestError(
                f"{url}: a quote opens in line {quotes.unclosed} and is never closed; close it, or say --quotes no "
                "where quotes are part of the values"
            )
    parses = {
        url: pa.csv.ParseOptions(delimiter=delimiter, quote_char='"' if wrap else False, newlines_in_values=wrap)
        for url, wrap in wraps.items()
    }
    headers = {url: _header(url, parses[url]) for url in urls}
    names = dict.fromkeys(itertools.chain.from_iterable(headers.values()))
    columns = pa.schema([pa.field(name, pa.string()) for name in names])
    tables = (table for url in urls for table in _tables(url, parses[url], headers[url], columns))
    return Stream(columns, tables, tuple(_told(seen, wraps)))


def _lines(url: str) -> Iterator[bytes]:
    with open_unpacked(url) as raw, io.BufferedReader(raw) as lines:
        yield from lines


def look_at(lines: Iterable[bytes], delimiter: str) -> Quotes:
    """Go through a file's lines once, as a reader of quotes would."""
    found, scan = Quotes(), _LineScan(delimiter.encode())
    row = -1  # the header
    inside, began, fit, delimiters = False, 0, True, 0
    for number, line in enumerate(lines):
        text = line.rstrip(b"\r\n")
        if number == 0:
            text = text.removeprefix(b"\xef\xbb\xbf")
            delimiters = text.count(scan.delimiter)
            found.header, found.columns = text.startswith(b'"'), delimiters + 1
        fits = text.count(scan.delimiter) == delimiters
        found.fits_plainly &= fits or not text
        if not inside:
            if not text:
                continue
            began, fit = number, True
        fit &= fits
        if b'"' in text or inside:
            found.lines += b'"' in text
            inside, malformed, needless = scan.cells(text, inside)
            found.needless += needless if row >= 0 else 0
            if malformed and found.malformed is None:
                found.malformed = max(row, 0)
        if inside:
            continue
        if number > began:
            found.first_merged = found.first_merged if found.merged else (row, began + 1, number + 1)
            found.merged += 1
            found.merged_fit |= fit
        row += 1
    found.unclosed = began + 1 if inside else None
    return found


class _LineScan:
    """The cells of one line, of which the first may be the rest of a value that began on a line before."""

    def __init__(self, delimiter: bytes) -> None:
        self.delimiter = delimiter
        self._inner = re.compile(rb'[^"]*(?:""[^"]*)*')
        self._plain = re.compile(rb"[^%b]*" % re.escape(delimiter))

    def cells(self, text: bytes, inside: bool) -> tuple[bool, bool, int]:
        """Whether a value goes on behind the line, whether a quote is out of place, and values that need no quotes."""
        place, malformed, needless = 0, False, 0
        while True:
            begin, continued = place, inside
            if inside or text.startswith(b'"', place):
                match = self._inner.match(text, place if inside else place + 1)
                assert match is not None
                place = match.end()
                if place == len(text):
                    return True, malformed, needless
                inside = False
                value = match.group()
                needless += bool(value) and not continued and b'"' not in value and self.delimiter not in value
                begin = place = place + 1
            match = self._plain.match(text, place)
            assert match is not None
            place = match.end()
            # Behind a closed quote, and in a value without them, stands none.
            malformed |= b'"' in match.group() or (begin < place and text[begin - 1 : begin] == b'"')
            if place == len(text):
                return False, malformed, needless
            place += 1


def _told(seen: dict[str, Quotes], wraps: dict[str, bool]) -> Iterator[str]:
    """What a person should know about the quotes."""
    merged, odd, plain = [], [], []
    for url, quotes in seen.items():
        row, first, last = quotes.first_merged
        if not wraps[url] and quotes.lines:
            plain.append(
                f"{url}: quotes are part of the values ({quotes.lines:,} lines have some); if they wrap them, say "
                "--quotes yes"
            )
        elif wraps[url] and quotes.merged:
            merged.append(
                f"{url}: {quotes.merged:,} rows run over several lines because of quotes, the first is row {row}, "
                f"lines {first} to {last}; if each line is a row, say --quotes no"
            )
        if wraps[url] and quotes.malformed is not None:
            odd.append(
                f"{url}: row {quotes.malformed} has a quote that neither opens nor closes a value; look at how it was "
                "read, or say --quotes no"
            )
    for notes in (merged, odd, plain):
        yield from notes[:_NAMED]
        if len(notes) > _NAMED:
            yield f"the same of {len(notes) - _NAMED:,} more files"


def _tables(url: str, parse: Any, header: Sequence[str], columns: pa.Schema) -> Iterator[Source]:
    convert = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(header, pa.string()),
        include_columns=columns.names,
        include_missing_columns=True,
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    with open_unpacked(url) as file, _errors(url, parse, header):
        row = 0
        for batch in pa.csv.open_csv(file, parse_options=parse, convert_options=convert, read_options=_READ):
            for start in range(0, batch.num_rows, ROWS):
                part = pa.Table.from_batches([batch.slice(start, ROWS)])
                yield Source(part.cast(columns), url, row + start)
            row += batch.num_rows


def _header(url: str, parse: Any) -> list[str]:
    with open_unpacked(url) as file, _errors(url, parse):
        names = list(pa.csv.open_csv(file, parse_options=parse, read_options=_READ).schema.names)
    for name in names:
        if names.count(name) > 1:
            raise ManifestError(f"{url}: column {name!r} appears twice in the header; rename one of them")
    return names


@contextlib.contextmanager
def _errors(url: str, parse: Any, header: Sequence[str] = ()) -> Iterator[None]:
    """Say what Arrow finds wrong with a file, with rows counted as everywhere here."""
    try:
        yield
    except pa.ArrowInvalid as error:
        text = first_line(error)
        if "straddling" in text:
            advice = f"a row has more than {_BLOCK_BYTES >> 20} MiB; look for a quote that is never closed"
        elif "Empty" in text:
            advice = f"{text}; it needs a header line and a row"
        else:
            # Arrow counts the header as row 1.
            text = re.sub(r"Row #(\d+)", lambda match: f"row {int(match[1]) - 2}", text)
            if header:
                text = re.sub(r"CSV column #(\d+)", lambda match: f"column {header[int(match[1])]!r}", text)
            other = "no" if parse.quote_char else "yes"
            advice = (
                f"{text}; write the file again, as UTF-8 and with quotes around values that hold a delimiter, or read "
                f"it with --quotes {other}"
            )
        raise ManifestError(f"{url}: {advice}") from error
