"""What a manifest can be made of: each source as a stream of Arrow tables of some thousand rows.

    csv, tsv, jsonl, parquet, text      files of any number, globs, URLs; .gz, .bz2 and .zst are unpacked on the way
    coco                                the captions of the COCO annotation format
    product                             every combination of lists of texts and of seeds

Folders of images are read by `manifests/image_folder.py`. Columns keep the names and the values of the source;
`manifests/making.py` brings them into the schema.
"""

from __future__ import annotations

import io
import itertools
import json
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from manifests import storage
from manifests.errors import ManifestError, UsageError, first_line
from manifests.sources import open_parquet

#: Rows of one table, and of one row group of what is written.
ROWS = 10_000

#: Of a CSV file, read at a time.
_BLOCK_BYTES = 4 << 20

_PACKINGS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}


@dataclass(frozen=True)
class Source:
    """A table of some source.

    Attributes:
        table: with the columns of the source.
        url: of the file it is from; relative locations count from that file's folder.
        first_row: of the table in that file, from 0; headers and blank lines do not count.
    """

    table: pa.Table
    url: str
    first_row: int

    def place(self, row: int) -> str:
        """Where a row of the table is, for messages."""
        return f"{self.url}: row {self.first_row + row}"


def find(locations: Sequence[str], suffixes: tuple[str, ...]) -> list[str]:
    """The files that locations stand for, each once, in order.

    Raises:
        ManifestError: a location stands for none.
    """
    urls: dict[str, None] = {}
    for location in locations:
        found = storage.find_files(location, suffixes)
        if not found:
            raise ManifestError(f"{location}: nothing there; name a file, a glob, or a folder of {', '.join(suffixes)}")
        urls.update(dict.fromkeys(found))
    return list(urls)


def _stream(url: str) -> pa.NativeFile:
    """A file's bytes, unpacked where its name says that it is packed."""
    try:
        file = storage.open_arrow(url)
    except FileNotFoundError:
        raise ManifestError(f"{url}: no such file") from None
    packing = _PACKINGS.get(posixpath.splitext(url)[1])
    return file if packing is None else pa.CompressedInputStream(file, packing)


def csv(urls: Sequence[str], delimiter: str = ",") -> Iterator[Source]:
    """Rows of files with a header line; every value is text, nothing between two delimiters is null, "" is empty.

    Raises:
        ManifestError: a file is not UTF-8, or a row has more or fewer values than the header.
    """
    parse = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    for url in urls:
        row = 0
        try:
            with _stream(url) as file:
                names = _header(url, parse)
                convert = pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                )
                reader = pa.csv.open_csv(
                    file,
                    parse_options=parse,
                    convert_options=convert,
                    read_options=pa.csv.ReadOptions(block_size=4 << 20),
                )
                for batch in reader:
                    yield Source(pa.Table.from_batches([batch]), url, row)
                    row += batch.num_rows
        except pa.ArrowInvalid as error:
            raise ManifestError(f"{url}: after row {row}: {first_line(error)}; write the file again") from error


def _header(url: str, parse: pa.csv.ParseOptions) -> list[str]:
    with _stream(url) as file:
        try:
            return list(pa.csv.open_csv(file, parse_options=parse).schema.names)
        except pa.ArrowInvalid as error:
            raise ManifestError(f"{url}: {first_line(error)}; it needs a header line and a row") from error


def jsonl(urls: Sequence[str]) -> Iterator[Source]:
    """Objects, one per line; a key that a line lacks is null in it.

    Raises:
        ManifestError: a line is not an object.
    """
    for url in urls:
        row = 0
        with _stream(url) as raw, io.TextIOWrapper(io.BufferedReader(raw), "utf-8-sig") as lines:
            for chunk in chunks(line for line in lines if line.strip()):
                objects = [_object(line, url, row + place) for place, line in enumerate(chunk)]
                yield Source(_table(objects, url, row), url, row)
                row += len(chunk)


def _object(line: str, url: str, row: int) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ManifestError(f"{url}: row {row} is not JSON ({error}); every line must be one object") from error
    if not isinstance(value, dict):
        raise ManifestError(f"{url}: row {row} is {type(value).__name__}, not an object; every line must be one")
    return value


def _table(objects: Sequence[Mapping[str, Any]], url: str, first_row: int) -> pa.Table:
    names = list(dict.fromkeys(name for one in objects for name in one))
    columns = []
    for name in names:
        values = [one.get(name) for one in objects]
        try:
            columns.append(pa.array(values))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            # Numbers beside texts: as text each keeps its meaning, and the schema's cast reads numbers again.
            if any(isinstance(value, (dict, list)) for value in values):
                raise ManifestError(
                    f"{url}: column {name!r} holds values of types that do not go together in rows {first_row} to "
                    f"{first_row + len(objects) - 1}; give all of them one form, or leave it out with --drop {name}"
                ) from None
            columns.append(pa.array([None if value is None else str(value) for value in values], pa.string()))
    return pa.table(columns, names=names)


def parquet(urls: Sequence[str]) -> Iterator[Source]:
    """Rows of Parquet files.

    Raises:
        ManifestError: a file is not Parquet.
    """
    for url in urls:
        file = open_parquet(url)
        row = 0
        try:
            for batch in file.iter_batches(ROWS):
                yield Source(pa.Table.from_batches([batch]), url, row)
                row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise ManifestError(f"{url}: after row {row}: {first_line(error)}; the file is damaged") from error
        finally:
            file.close()


def text(urls: Sequence[str]) -> Iterator[Source]:
    """One prompt per line, as column `prompt`; blank lines do not count."""
    for url in urls:
        row = 0
        for chunk in chunks(_lines(url)):
            yield Source(pa.table({"prompt": pa.array(chunk, pa.string())}), url, row)
            row += len(chunk)


def _lines(url: str) -> Iterator[str]:
    try:
        with _stream(url) as raw, io.TextIOWrapper(io.BufferedReader(raw), "utf-8-sig") as lines:
            for line in lines:
                if line.strip():
                    yield line.strip()
    except UnicodeDecodeError as error:
        raise ManifestError(f"{url}: it is not UTF-8 ({error.reason}); write it again as UTF-8") from error


def coco(url: str, sample: int | None, seed: int) -> Iterator[Source]:
    """Captions of a COCO annotation file: `id`, `prompt`, and `image_id`, `caption_id`, `file_name` for evaluation.

    Args:
        sample: so many images, drawn without replacement, each with one of its captions; None: every caption.
        seed: of the draw (NumPy's default generator).

    Raises:
        ManifestError: the file is something else, or has fewer images.
    """
    try:
        content = json.loads(storage.read_bytes(url))
        names = {image["id"]: image.get("file_name") for image in content.get("images", ())}
        captions = sorted((c["image_id"], c["id"], str(c["caption"]).strip()) for c in content["annotations"])
    except FileNotFoundError:
        raise ManifestError(f"{url}: no such file") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(
            f"{url}: not COCO captions ({type(error).__name__}: {error}); give captions_val2014.json or its like"
        ) from error
    if sample is not None:
        by_image: dict[int, list[tuple[int, int, str]]] = defaultdict(list)
        for caption in captions:
            by_image[caption[0]].append(caption)
        if sample > len(by_image):
            raise ManifestError(f"{url}: it has captions of {len(by_image)} images, so --sample {sample} cannot be had")
        rng = np.random.default_rng(seed)
        drawn = rng.choice(np.array(sorted(by_image)), sample, replace=False).tolist()
        captions = [by_image[image][rng.integers(len(by_image[image]))] for image in drawn]
    row = 0
    for chunk in chunks(captions):
        image_ids, caption_ids, prompts = zip(*chunk, strict=True)
        columns = {
            "id": [f"coco-{number}" for number in caption_ids],
            "prompt": list(prompts),
            "image_id": list(image_ids),
            "caption_id": list(caption_ids),
            "file_name": pa.array([names.get(image) for image in image_ids], pa.string()),
        }
        yield Source(pa.table(columns), url, row)
        row += len(chunk)


def product(words: Sequence[str]) -> Iterator[Source]:
    """Every combination of what `prompts.txt x styles.txt x seeds 0..3` names, the last one turning fastest.

    Texts of several files are joined by ", "; `seeds A..B` counts both ends.

    Raises:
        UsageError: the words do not make a product.
    """
    texts: list[list[str]] = []
    seeds: list[int] | None = None
    for is_sign, group in itertools.groupby(words, lambda word: word == "x"):
        if is_sign:
            continue
        factor = list(group)
        if factor[0] == "seeds":
            span = re.fullmatch(r"(\d+)\.\.(\d+)", factor[1]) if len(factor) == 2 else None
            if span is None or seeds is not None or int(span[1]) > int(span[2]):
                raise UsageError(f"option --product: {' '.join(factor)!r} is not `seeds A..B`, given once, A up to B")
            seeds = list(range(int(span[1]), int(span[2]) + 1))
        elif len(factor) == 1:
            texts.append(list(_lines(find(factor, (".txt",))[0])))
        else:
            raise UsageError(f"option --product: put an x between the factors, not {' '.join(factor)!r}")
    if not texts:
        raise UsageError("option --product: name at least one file of texts, as in `prompts.txt x seeds 0..3`")
    factors: list[Sequence[Any]] = [*texts, seeds if seeds is not None else [None]]
    row = 0
    for chunk in chunks(itertools.product(*factors)):
        columns = {"prompt": pa.array([", ".join(parts[:-1]) for parts in chunk], pa.string())}
        if seeds is not None:
            columns["seed"] = pa.array([parts[-1] for parts in chunk], pa.uint64())
        yield Source(pa.table(columns), "the product", row)
        row += len(chunk)


def chunks(items: Iterable[Any], size: int = ROWS) -> Iterator[list[Any]]:
    """The items in lists of a size, the last one shorter."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
