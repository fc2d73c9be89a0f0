"""The report of an output: the page, and the manifest of what failed, put together and written."""

from __future__ import annotations

import time

from jobs.reporting.errors_manifest import write_errors
from jobs.reporting.page import render
from jobs.reporting.pictures import thumbnails
from jobs.reporting.sample import draw_sample
from jobs.reporting.summary import summarize
from jobs.run import run_folder
from manifests import storage

#: Images that are shown of a bucket, and in all: some 2 MB.
PER_BUCKET, PICTURES = 24, 480

#: Name of the page under `_run/`.
PAGE = "report.html"


def make_report(output: str, per_bucket: int = PER_BUCKET, pictures: int = PICTURES, seed: int = 0) -> str:
    """Write the page; returns where it is.

    Args:
        per_bucket: rows shown of a bucket, at most.
        pictures: rows shown in all, at most; buckets share them evenly, those with most images first.
        seed: of the sample.

    Raises:
        UsageError: no run was begun there.
        StorageError: the output cannot be read or written.
    """
    summary = summarize(output)
    sample = draw_sample(output, summary.stats, seed, per_bucket)
    each = max(1, pictures // max(1, len(sample.buckets)))
    for position, bucket in enumerate(sample.buckets):
        del bucket.rows[each if position < pictures else 0 :]
        bucket.rows.sort(key=lambda row: str(row["key"]))
    shown = thumbnails(output, (row for bucket in sample.buckets for row in bucket.rows))
    write_errors(output, summary.stats)
    url = storage.join(output, run_folder.FOLDER, PAGE)
    storage.write_atomic(url, render(summary, sample, shown, time.time()).encode())
    return url
