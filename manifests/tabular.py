"""What a manifest can be made of: each source as a stream of Arrow tables of some thousand rows.

    csv, tsv, jsonl, parquet, text      files of any number, globs, URLs; .gz, .bz2 and .zst are unpacked on the way
    images                              a folder of images, with masks and captions where it has them
    coco                                the captions of the COCO annotation format
    product                             every combination of lists of texts and of seeds

Columns keep the names and the values of the source; `manifests/making.py` brings them into the schema.
"""

from __future__ import annotations

import io
import itertools
import json
import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from PIL import Image

from manifests import storage
from manifests.errors import ManifestError, UsageError, first_line
from manifests.sources import open_parquet

#: Rows of one table, and of one row group of what is written.
ROWS = 10_000

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")

#: Of a CSV file, read at a time.
_BLOCK_BYTES = 4 << 20

_PACKINGS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}

#: Values for `masks` that are no folder.
BESIDE, ALPHA = "beside", "alpha"

_MASK_STEM = re.compile(r"[_-]mask$", re.IGNORECASE)


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
            for chunk in _chunks(line for line in lines if line.strip()):
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
        for chunk in _chunks(_lines(url)):
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


def images(folder: str, masks: str | None) -> Iterator[Source]:
    """Images of a folder and its sub-folders, sorted, as `id` (path in the folder without suffix) and `image`.

    Where a text of the same name lies beside an image (`cat.txt` beside `cat.png`) it is the image's `prompt`.

    Args:
        masks: a folder with a mask of the same name for each image; 'beside': `cat_mask.png` lies beside `cat.png`;
            'alpha': what is transparent is to be repainted; None: there are no masks.

    Raises:
        ManifestError: there are no images, two have one name, or an image has no mask.
    """
    found = find([folder], (*IMAGE_SUFFIXES, ".txt"))
    base = storage.absolute(folder).rstrip("/") + "/"
    captions = {posixpath.splitext(url)[0] for url in found if url.endswith(".txt")}
    pictures = [url for url in found if url.lower().endswith(IMAGE_SUFFIXES)]
    mask_of = _masks(folder, pictures, masks)
    if masks == BESIDE:
        pictures = [url for url in pictures if not _MASK_STEM.search(posixpath.splitext(url)[0])]
    if not pictures:
        raise ManifestError(f"{folder}: no images there; these count: {', '.join(IMAGE_SUFFIXES)}")
    _refuse_doubles(pictures)
    row = 0
    for chunk in _chunks(pictures):
        stems = [posixpath.splitext(url)[0] for url in chunk]
        columns: dict[str, Any] = {"id": [stem.split(base, 1)[-1] for stem in stems], "image": chunk}
        if captions:
            prompts = [storage.read_bytes(f"{s}.txt").decode().strip() if s in captions else None for s in stems]
            columns["prompt"] = pa.array(prompts, pa.string())
        if masks is not None:
            columns["mask"] = [mask_of(url) for url in chunk]
        yield Source(pa.table(columns), folder, row)
        row += len(chunk)


def _refuse_doubles(pictures: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for url in pictures:
        other = seen.setdefault(posixpath.splitext(url)[0], url)
        if other != url:
            raise ManifestError(f"{other} and {url} would have one id; rename one of them")


def _masks(folder: str, pictures: Sequence[str], masks: str | None) -> Callable[[str], Any]:
    """Finds the mask of an image."""
    if masks is None:
        return lambda url: None
    if masks == ALPHA:
        return _alpha
    if masks == BESIDE:
        stems = [(posixpath.splitext(url)[0], url) for url in pictures]
        by_stem = {_MASK_STEM.sub("", stem): url for stem, url in stems if _MASK_STEM.search(stem)}
        base, where = "", f"named NAME_mask beside it in {folder}"
    else:
        base = storage.absolute(masks).rstrip("/") + "/"
        by_stem = {posixpath.splitext(url)[0].split(base, 1)[-1]: url for url in find([masks], IMAGE_SUFFIXES)}
        base, where = storage.absolute(folder).rstrip("/") + "/", f"of the same name in {masks}"

    def mask(url: str) -> str:
        stem = posixpath.splitext(url)[0]
        name = stem.split(base, 1)[-1] if base else stem
        if name not in by_stem:
            raise ManifestError(f"{url}: no mask {where}; add one, or leave the image out of the folder")
        return by_stem[name]

    return mask


def _alpha(url: str) -> dict[str, Any]:
    """White where the image is transparent, as an inline mask."""
    try:
        with Image.open(io.BytesIO(storage.read_bytes(url))) as picture:
            if "A" not in picture.getbands() and "transparency" not in picture.info:
                raise ManifestError(f"{url}: it has no alpha channel to take a mask from; use --masks FOLDER")
            alpha = np.asarray(picture.convert("RGBA").getchannel("A"))
    except OSError as error:
        raise ManifestError(f"{url}: not a readable image ({first_line(error)})") from error
    sink = io.BytesIO()
    Image.fromarray(np.where(alpha < 128, 255, 0).astype(np.uint8)).save(sink, "PNG")
    return {"bytes": sink.getvalue(), "path": None}


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
    for chunk in _chunks(captions):
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
    for chunk in _chunks(itertools.product(*factors)):
        columns = {"prompt": pa.array([", ".join(parts[:-1]) for parts in chunk], pa.string())}
        if seeds is not None:
            columns["seed"] = pa.array([parts[-1] for parts in chunk], pa.uint64())
        yield Source(pa.table(columns), "the product", row)
        row += len(chunk)


def _chunks(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, ROWS)):
        yield chunk
