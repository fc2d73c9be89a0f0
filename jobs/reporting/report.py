"""The report of an output: the page, and the manifest of what failed, put together and written."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jobs.output.manifest_rows import ManifestRows
from jobs.output.sample import draw_sample
from jobs.output.summary import summarize
from jobs.reporting.comparison import Against, missing, row_apart
from jobs.reporting.errors_manifest import write_errors
from jobs.reporting.grids import lay_out
from jobs.reporting.page import render
from jobs.reporting.pictures import MANIFEST_BYTES, Picture, data_uri, thumbnails
from jobs.run import run_folder
from manifests import storage
from manifests.errors import StorageError, first_line
from workers.stages.fetching import UnusableError

#: Images that are shown of a bucket, and in all: some 2 MB.
PER_BUCKET, PICTURES = 24, 480

#: Names of the page under `_run/`, and of that with another output beside this one.
PAGE, AGAINST_PAGE = "report.html", "against.html"


def make_report(
    output: str, per_bucket: int = PER_BUCKET, pictures: int = PICTURES, seed: int = 0, against: str | None = None
) -> str:
    """Write the page; returns where it is.

    Args:
        output: of the run.
        per_bucket: rows shown of a bucket, at most.
        pictures: rows shown in all, at most; buckets share them evenly, those with most images first.
        seed: of the sample.
        against: another output, whose images are shown beside those of the same id, on a page of its own.

    Raises:
        UsageError: no run was begun there.
        StorageError: the output cannot be read or written.
    """
    summary = summarize(output)
    sample = draw_sample(output, summary.stats, int(summary.planned.get("requests", 0)), seed, per_bucket)
    each = max(1, pictures // max(1, len(sample.buckets)))
    for position, bucket in enumerate(sample.buckets):
        del bucket.rows[each if position < pictures else 0 :]
        bucket.rows.sort(key=lambda row: str(row["key"]))
    rows = [row for bucket in sample.buckets for row in bucket.rows]
    manifest = ManifestRows(summary.settings.get("manifest", ()), budget=MANIFEST_BYTES)
    grids = None if sample.product is None else lay_out(output, sample.product)
    ends = itertools.chain.from_iterable([*tally.best, *tally.worst] for tally in sample.scores)
    more = [*(grids.records if grids else ()), *ends, *itertools.chain.from_iterable(sample.failures.values())]
    shown = thumbnails(output, list({row["key"]: row for row in [*more, *rows]}.values()), manifest)
    other = None if against is None else Against.of(summary, against)
    if other is None:
        write_errors(output, summary.stats)
    else:
        _add_theirs(rows, shown, other)
    url = storage.join(output, run_folder.FOLDER, PAGE if other is None else AGAINST_PAGE)
    storage.write_atomic(url, render(summary, sample, shown, time.time(), grids, other).encode())
    return url


def _add_theirs(rows: Sequence[dict[str, Any]], shown: dict[str, list[Picture]], other: Against) -> None:
    """Put the other output's image beside each row's own, and what is otherwise into the row."""
    for row, theirs in zip(rows, other.catalog.like(rows), strict=True):
        pictures, why = shown[row["key"]], missing(theirs)
        pictures[-1] = replace(pictures[-1], label=other.names[0])
        uri = None
        if theirs is not None and not why:
            try:
                uri = data_uri(other.catalog.image(theirs))
            except (StorageError, UnusableError) as error:
                why = first_line(error)
        pictures.append(Picture(other.names[1], uri, why))
        row["apart"] = None if theirs is None else row_apart(row, theirs) or None
