"""Where sets of images come from: an output, a folder of images, tars of WebDataset, or a file of statistics.

Of an output that keeps embeddings (`--keep-clip`) these are read, and images only where one has none.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.evaluation import statistics
from jobs.evaluation.encoder import Encoder
from jobs.evaluation.statistics import Statistics, gather
from jobs.exporting.rows import Rows
from jobs.exporting.selection import Choice, Selection, select
from jobs.output.catalog import read_table
from jobs.output.summary import Summary, summarize
from jobs.run import run_folder
from manifests import storage
from manifests.embeddings import kept_clip
from manifests.errors import StorageError, UsageError, first_line
from manifests.making.image_folder import IMAGE_SUFFIXES

Matrix = npt.NDArray[Any]


def of_output(summary: Summary, chosen: Selection, encoder: Encoder, encode: bool) -> Statistics:
    """Of chosen images of an output.

    Args:
        encoder: of its checkpoint.
        encode: embed all of them, also those whose embeddings are kept.
    """
    return gather(_output_vectors(summary, chosen, encoder, encode), encoder.fingerprint)


def of_reference(location: str, encoder: Encoder, encode: bool) -> Statistics:
    """Of what a person names as a reference.

    Args:
        encoder: that the other images are embedded by.
        encode: as of `of_output`.

    Raises:
        UsageError: there are no images, or they were embedded by another encoder.
        StorageError: something cannot be read.
    """
    if location.endswith(".npz"):
        return statistics.load(location)
    if run_folder.read(location, "plan.json") is not None:
        return _other_output(location, encoder, encode)
    suffixes = (*IMAGE_SUFFIXES, ".tar")
    found = storage.find(location, suffixes, marks=False).files
    tars = [url for url in found if url.lower().endswith(".tar")]
    files = _tar_files(tars) if tars else _files([url for url in found if not url.lower().endswith(".tar")])
    if not found:
        raise UsageError(
            f"option --reference: {location} has no images, tars or run; these count: {', '.join(suffixes)}"
        )
    return gather(encoder.vectors(files), encoder.fingerprint)


def _other_output(output: str, encoder: Encoder, encode: bool) -> Statistics:
    summary = summarize(output)
    chosen = select(output, summary.stats, Choice())
    keeps = not encode and any(stats.clip for stats in summary.stats)
    theirs = encoder.like(run_folder.settings(output)) if keeps else encoder
    if theirs.fingerprint != encoder.fingerprint:
        raise UsageError(
            f"option --reference: {output} keeps embeddings by another encoder ({theirs.fingerprint}, not "
            f"{encoder.fingerprint}), which cannot be compared; --encode embeds its images by the output's"
        )
    return of_output(summary, chosen, encoder, encode)


def _output_vectors(summary: Summary, chosen: Selection, encoder: Encoder, encode: bool) -> Iterator[Matrix]:
    config = run_folder.settings(summary.output)
    reader = Rows(summary.output, {one.shard: one for one in summary.stats}, config, None)
    for shard in np.unique(chosen.shards).tolist():
        rows = chosen.rows[chosen.shards == shard]
        keys = read_table(summary.output, shard, rows.astype(np.int64), ["key"])["key"].to_pylist()
        places, matrix = ({}, None) if encode else _kept(summary.output, shard)
        there = np.array([key in places for key in keys], bool)
        if matrix is not None and there.any():
            yield matrix[[places[key] for key in keys if key in places]]
        if not there.all():
            part = Selection(np.full(int((~there).sum()), shard, np.int32), rows[~there], 0)
            pieces = (piece.select(["key", "encoded"]).to_pylist() for piece in reader.read(part))
            yield from encoder.vectors((row["key"], row["encoded"]) for piece in pieces for row in piece)


def _kept(output: str, shard: int) -> tuple[dict[str, int], Matrix | None]:
    try:
        metadata, matrix = kept_clip.read(output, shard)
    except FileNotFoundError:
        return {}, None
    return {key: place for place, key in enumerate(metadata["key"].to_pylist())}, matrix


def _files(urls: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for url in urls:
        yield url, storage.read_bytes(url)


def _tar_files(urls: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for url in urls:
        try:
            with storage.open_read(url) as file, tarfile.open(fileobj=file, mode="r|") as tar:
                for member in tar:
                    content = tar.extractfile(member) if member.name.lower().endswith(IMAGE_SUFFIXES) else None
                    if content is not None:
                        yield f"{url}: {member.name}", content.read()
        except tarfile.TarError as error:
            raise StorageError(f"{url} is no whole tar ({first_line(error)})") from error
