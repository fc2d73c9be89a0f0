# PYTHON_ARGCOMPLETE_OK
"""Make a manifest of what there is: a table of captions, a folder of images, COCO's captions, a product of lists.

    python jobs/make_manifest.py --csv a.csv --map txt=prompt --output m.parquet
    python jobs/make_manifest.py --text a.txt --set width=768 --output m.parquet
    python jobs/make_manifest.py --images in --masks beside --output m.parquet
    python jobs/make_manifest.py --coco a.json --sample 30000 --output m.parquet
    python jobs/make_manifest.py --product a.txt x seeds 0..3 --output m.parquet

Files may be many, globs or URLs, and packed (.gz, .bz2, .zst). The task of a row is the one it names or --set task=…,
else what its inputs are for: conditions interpolate, a mask inpaints, an image is img2img, anything else is text2img.
Columns that no request has travel to the output's index. Locations below the manifest's folder are written as seen from
there, so that both can be moved together. The manifest appears under its name when it is whole. It replaces a manifest
that was made here before, and another file only with --overwrite; it is never its own source.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

# As in generate.py: this source tree first, this folder not at all.
_ROOT = str(Path(__file__).resolve().parent.parent)
sys.path[:] = [
    _ROOT,
    *(entry for entry in sys.path if entry not in (_ROOT, str(Path(__file__).resolve().parent))),
]

from jobs.cli import EXIT_OK, Parser, run_script  # noqa: E402
from manifests import storage  # noqa: E402
from manifests.errors import UsageError  # noqa: E402
from manifests.making import coco, delimited, image_folder, product, tables, writing  # noqa: E402
from manifests.making.tables import Stream  # noqa: E402
from manifests.requests.schema import REQUEST_NAMES, TASKS  # noqa: E402

#: Option -> the endings of files that count in a folder.
_TABLES = {
    "csv": (".csv", ".csv.gz", ".csv.bz2", ".csv.zst"),
    "tsv": (".tsv", ".tsv.gz", ".tsv.bz2", ".tsv.zst"),
    "jsonl": (".jsonl", ".ndjson", ".jsonl.gz", ".jsonl.bz2", ".jsonl.zst"),
    "parquet": (".parquet", ".parq", ".pq"),
    "text": (".txt", ".txt.gz", ".txt.bz2", ".txt.zst"),
}


def _parser() -> Parser:
    parser = Parser(description=__doc__, usage="%(prog)s SOURCE --output FILE [options]")
    sources = parser.add_argument_group("one source").add_mutually_exclusive_group(required=True)
    for name in _TABLES:
        what = "one prompt per line" if name == "text" else f"{name.upper()} files, globs, folders or URLs"
        sources.add_argument(f"--{name}", nargs="+", metavar="PATH_OR_URL", help=what)
    sources.add_argument(
        "--images", metavar="FOLDER_OR_URL", help="images; texts of the same name beside them are their prompts"
    )
    sources.add_argument("--coco", metavar="FILE_OR_URL", help="COCO captions, such as captions_val2014.json")
    sources.add_argument(
        "--product",
        nargs="+",
        metavar="FACTOR",
        help="texts, styles (with {prompt} or to follow it), `seeds A..B`, `steps 25,50` and such, with x between",
    )
    of_tables = parser.add_argument_group("with --csv and --tsv")
    of_tables.add_argument(
        "--quotes",
        choices=("auto", "yes", "no"),
        help='"…" wraps a value (yes) or is part of it (no); auto looks at the file, and expects yes of CSV, no of TSV',
    )
    of_images = parser.add_argument_group("with --images")
    of_images.add_argument(
        "--masks", metavar="FOLDER_OR_WORD", help="a folder or URL, 'beside' (cat_mask.png by cat.png) or 'alpha'"
    )
    of_coco = parser.add_argument_group("with --coco")
    of_coco.add_argument("--sample", type=int, metavar="N", help="N images, each with one of its captions")
    of_coco.add_argument("--seed", type=int, default=None, metavar="N", help="of the draw (default: 0)")
    columns = parser.add_argument_group("columns")
    columns.add_argument(
        "--map",
        nargs="+",
        action="extend",
        default=[],
        metavar="COLUMN=NAME",
        help="the source's name and the request's",
    )
    columns.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="for rows that have no such value"
    )
    columns.add_argument(
        "--drop", nargs="+", action="extend", default=[], metavar="COLUMN", help="of the source, to be left out"
    )
    where = parser.add_argument_group("where")
    where.add_argument("--output", required=True, metavar="FILE_OR_URL", help="the manifest, a Parquet file (required)")
    where.add_argument("--overwrite", action="store_true", help="replace the output even if it was not made here")
    return parser


def _source(given: argparse.Namespace, output: str) -> Stream:
    """The chosen source, without the output of an earlier start, which may lie in the same folder.

    Raises:
        UsageError: an option belongs to another source.
    """
    belongs = {"masks": ("images",), "sample": ("coco",), "seed": ("coco",), "quotes": ("csv", "tsv")}
    for option, sources in belongs.items():
        if getattr(given, option) is not None and all(getattr(given, source) is None for source in sources):
            raise UsageError(f"option --{option}: goes with --{' and --'.join(sources)} only")
    if given.sample is not None and given.sample < 1:
        raise UsageError("option --sample: give a number of 1 or more")
    if given.images is not None:
        return image_folder.images(given.images, given.masks)
    if given.coco is not None:
        return coco.coco(storage.absolute(given.coco), given.sample, given.seed or 0)
    if given.product is not None:
        return product.product(given.product)
    (name,) = (name for name in _TABLES if getattr(given, name) is not None)
    urls, left_out = tables.find(getattr(given, name), _TABLES[name])
    others = [url for url in urls if not storage.same_place(url, output)]
    if not others:
        raise UsageError(f"option --output: {output} is also the source; give the manifest another name")
    readers = {"jsonl": tables.jsonl, "parquet": tables.parquet, "text": tables.text}
    if name in readers:
        stream = readers[name](others)
    else:
        stream = delimited.delimited(others, "\t" if name == "tsv" else ",", given.quotes or "auto")
    own = (f"left out: {output}, which is the output",) if len(others) < len(urls) else ()
    return replace(stream, notes=(*stream.notes, *left_out, *own))


def _recipe(given: argparse.Namespace) -> writing.Recipe:
    renames = writing.parse_pairs("--map", given.map)
    defaults = writing.parse_pairs("--set", given.set)
    for option, names in (("--map", renames.values()), ("--set", defaults)):
        for name in names:
            if name not in REQUEST_NAMES:
                raise UsageError(
                    f"option {option}: {name!r} is no column of a request; there are {', '.join(REQUEST_NAMES)}"
                )
    writing.check_defaults(defaults)
    return writing.Recipe(renames, frozenset(given.drop), defaults)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the manifest and say what is in it."""
    given = _parser().parse(arguments)
    output = storage.absolute(given.output)
    if not output.endswith((".parquet", ".parq", ".pq")):
        raise UsageError(
            f"option --output: {given.output!r} does not end in .parquet, so it would not be found in a folder"
        )
    writing.refuse_foreign(output, given.overwrite)
    made = writing.make(_source(given, output), _recipe(given), output)
    tasks = ", ".join(f"{made.by_task[task]:,} {task}" for task in TASKS if made.by_task[task])
    unknown = made.rows - sum(made.by_task[task] for task in TASKS)
    print(f"{made.rows:,} rows ({tasks}{f', {unknown:,} of an unknown task' if unknown else ''}): {output}")
    for line in made.notes:
        print(f"note: {line}")
    for line in made.told:
        print(f"  {line}")
    if made.unusable:
        more = f", {made.unusable - len(made.told):,} more than these" if made.unusable > len(made.told) else ""
        print(f"{made.unusable:,} of {made.rows:,} rows cannot be made{more}; a run has them in its index as failed")
    print(f"what it will cost, and which rows cannot be used: python jobs/plan.py --manifest {output} --output FOLDER")
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)
