"""One export from options to its last file: choose, begin or go on, write part by part, finish."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass

import pyarrow as pa

from jobs.exporting.card import SAMPLES, About, make_card, sample_pictures
from jobs.exporting.layouts import LAYOUTS
from jobs.exporting.rows import ORIGINALS, Rows
from jobs.exporting.selection import Choice, Selection, select
from jobs.exporting.target import Contents, Target
from jobs.output.catalog import open_index
from jobs.output.summary import Summary, summarize
from jobs.run import run_folder
from manifests import storage
from manifests.config import RunConfig
from manifests.errors import UsageError


@dataclass(frozen=True)
class Wish:
    """What a person asks for.

    Attributes:
        output: of a run.
        to: the folder to fill.
        layout: one of LAYOUTS.
        choice: which rows.
        resize: pixels of the shorter side; None leaves images as they are.
        rows_per_file: of the layouts with large files.
        licence, title: for a card; None of other layouts.
        name: under which the Hub will have it; None where it does not go there.
    """

    output: str
    to: str
    layout: str
    choice: Choice
    resize: int | None
    rows_per_file: int
    licence: str | None
    title: str | None
    name: str | None


@dataclass(frozen=True)
class Exported:
    """What came of it.

    Attributes:
        contents: of all files.
        made: parts that this start has written, of `parts`.
        without_image: rows that were asked for and have no image.
        whole: the run that made the output has finished.
    """

    contents: Contents
    made: int
    parts: int
    without_image: int
    whole: bool


def export(wish: Wish, tell: Callable[[str], None]) -> Exported:
    """Do the export, or what is left of it.

    Args:
        tell: hears of each file.

    Raises:
        UsageError: it cannot be done like this; nothing was written.
        StorageError: output or target cannot be read or written; the same command goes on.
    """
    target = Target(wish.to)
    target.refuse_others()
    summary = summarize(wish.output)
    selection = select(wish.output, summary.stats, wish.choice)
    target.begin(_asked(wish, summary, selection))
    config = run_folder.settings(wish.output)
    rows = Rows(wish.output, {one.shard: one for one in summary.stats}, config, wish.resize)
    files = -(-len(selection) // wish.rows_per_file)
    done = target.done()
    missing = [file for file in range(files) if file not in done]
    layout = LAYOUTS[wish.layout](wish.to, config)
    for file in missing:
        part = selection.part(file * wish.rows_per_file, (file + 1) * wish.rows_per_file)
        done[file] = layout.write(file, files, rows.read(part))
        target.keep(file, done[file])
        tell(f"{file + 1:,} of {files:,} parts")
    contents = sum(done.values(), Contents())
    if not target.is_finished():
        layout.finish(files)
        if wish.layout == "huggingface":
            _describe(wish, target, contents, summary, selection, rows, config)
        target.finish(contents)
    return Exported(contents, len(missing), files, selection.without_image, summary.whole)


def _asked(wish: Wish, summary: Summary, selection: Selection) -> dict[str, object]:
    """What decides the bytes of an export, under the names that a message shows. No paths: it is pushed, too."""
    source = hashlib.sha256("".join(one.parquet.sha256 for one in summary.stats).encode()).hexdigest()
    return {
        "--layout": wish.layout,
        **{f"--{name}": value for name, value in asdict(wish.choice).items()},
        "--resize": wish.resize,
        "--rows-per-file": wish.rows_per_file,
        "--license": wish.licence,
        "--title": wish.title,
        "the output": source,
        "the choice of rows": selection.digest(),
    }


def _describe(
    wish: Wish,
    target: Target,
    contents: Contents,
    summary: Summary,
    selection: Selection,
    rows: Rows,
    config: RunConfig,
) -> None:
    """Card and sample pictures."""
    with open_index(wish.output, int(selection.shards[0])) as file:
        schema: pa.Schema = file.schema_arrow
    if wish.resize is not None:
        for name in ORIGINALS:
            schema = schema.append(
                pa.field(
                    f"original_{name}", schema.field(name).type, metadata={"description": f"{name} as it was made"}
                )
            )
    # From all over the dataset, because neighbours are of one request.
    step = max(1, len(selection) // SAMPLES)
    samples = {}
    for place in range(0, len(selection), step)[:SAMPLES]:
        samples.update(sample_pictures(rows.read(selection.part(place, place + 1)), config))
    for name, (_, picture) in samples.items():
        storage.write_atomic(storage.join(wish.to, name), picture)
    title = wish.title or "Images by Kandinsky 2.1"
    about = About(wish.licence or "", title, wish.name or "OWNER/NAME", _choice_lines(wish))
    versions = summary.report.get("versions", {})
    target.write_new("README.md", make_card(about, contents, schema, config, samples, versions))


def _choice_lines(wish: Wish) -> list[str]:
    choice = wish.choice
    lines = [] if choice.where is None else [f"rows where `{choice.where}`"]
    lines += [] if choice.shuffle is None else [f"in a random order (seed {choice.shuffle})"]
    lines += [] if choice.limit is None else [f"{choice.limit:,} images at most"]
    lines += [] if wish.resize is None else [f"made smaller, to {wish.resize} pixels on the shorter side"]
    return lines


def refuse_unfit(wish: Wish) -> None:
    """Options that do not go together.

    Raises:
        UsageError: they do not.
    """
    if wish.layout == "huggingface" and not wish.licence:
        raise UsageError(
            "option --license: the card of a dataset says under which licence it may be used; give one as the Hub "
            "spells it, such as cc-by-4.0 or other"
        )
    for name, given in (("license", wish.licence), ("title", wish.title), ("push", wish.name)):
        if given is not None and wish.layout != "huggingface":
            raise UsageError(f"option --{name}: goes with --layout huggingface only")
    for name, value in (
        ("limit", wish.choice.limit),
        ("resize", wish.resize),
        ("rows-per-file", wish.rows_per_file),
    ):
        if value is not None and value < 1:
            raise UsageError(f"option --{name}: give a number of 1 or more; got {value}")
    if wish.choice.shuffle is not None and wish.choice.shuffle < 0:
        raise UsageError(f"option --shuffle: a seed is 0 or more; got {wish.choice.shuffle}")
    if wish.name is not None and storage.is_remote(wish.to):
        raise UsageError("option --push: --to must be a folder of this machine, from which the files are pushed")
