"""Make the report page of an output: what came of the run, with a sample of its pictures, as one offline HTML file.

    python jobs/report.py --output images

Works while the run is under way too, on what is committed so far. Writes `_run/report.html`, and the failed requests as
a manifest of their own, `_run/errors.parquet`; changes nothing else. Exit code 0: it is made. 2: there is no run.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

# The script must run from any folder, installed or not, so this source tree comes first. Its own folder goes,
# because a module there could hide one of the same name that others import.
_ROOT = str(Path(__file__).resolve().parent.parent)
sys.path[:] = [
    _ROOT,
    *(entry for entry in sys.path if entry not in (_ROOT, str(Path(__file__).resolve().parent))),
]

from jobs.cli import EXIT_OK, run_script  # noqa: E402
from jobs.reporting.errors_manifest import write_errors  # noqa: E402
from jobs.reporting.page import render  # noqa: E402
from jobs.reporting.pictures import thumbnails  # noqa: E402
from jobs.reporting.sample import draw_sample  # noqa: E402
from jobs.reporting.summary import summarize  # noqa: E402
from jobs.run import run_folder  # noqa: E402
from manifests import storage  # noqa: E402

#: Name of the page under `_run/`.
PAGE = "report.html"


def make_report(output: str, per_bucket: int, pictures: int, seed: int) -> str:
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
    shown = thumbnails(output, (row for bucket in sample.buckets for row in bucket.rows))
    write_errors(output, [shard for shard in summary.stats if shard.failed])
    url = storage.join(output, run_folder.FOLDER, PAGE)
    storage.write_atomic(url, render(summary, sample, shown, time.time()).encode())
    return url


def main() -> int:
    """Parse, make, say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, metavar="DIR_OR_URL", help="output of generate.py")
    parser.add_argument(
        "--per-bucket", type=int, default=24, metavar="N", help="images shown of a bucket (default: 24)"
    )
    parser.add_argument("--pictures", type=int, default=480, metavar="N", help="images shown in all (default: 480)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the sample (default: 0)")
    given = parser.parse_args()
    print(make_report(storage.absolute(given.output), given.per_bucket, given.pictures, given.seed))
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)
