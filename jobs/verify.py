# PYTHON_ARGCOMPLETE_OK
"""Prove what an output holds: every request written or failed, nothing lost, doubled or damaged.

    python jobs/verify.py --manifest requests.parquet --output images

Reads the manifest and the output, every byte of it, and nothing else; changes nothing. Exit code 0: all of it is
right. 1: something is not, and the table says what. 2: the command line, the manifest or the output cannot be used.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

# The script must run from any folder, installed or not, so this source tree comes first. Its own folder goes,
# because a module there could hide one of the same name that others import.
_ROOT = str(Path(__file__).resolve().parent.parent)
sys.path[:] = [
    _ROOT,
    *(entry for entry in sys.path if entry not in (_ROOT, str(Path(__file__).resolve().parent))),
]

import pyarrow as pa  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from jobs.cli import EXIT_INCOMPLETE, EXIT_OK, parse_config, run_script  # noqa: E402
from jobs.verification.findings import Verdict  # noqa: E402
from jobs.verification.output import verify  # noqa: E402

#: Findings printed; the table counts all of them.
SHOWN = 30

#: What is proved, in the words of the table.
CHECKS = {
    "manifest": "the manifest is the one that the output was made of",
    "shards": "every planned shard is sealed, and there is no other",
    "index": "every planned sample is in the index once, as the manifest asks for it",
    "tar": "tar and index hold the same samples, in the same order, with the same records",
    "images": "every image has the SHA-256 that the index says",
    "stats": "counts, sizes and checksums of the stats files are right",
    "requests": "requests = written + failed",
    "left over": "no staged parts are left",
    "_SUCCESS": "the marker of a finished run is there where the run is finished",
}


def show(verdict: Verdict, console: Console) -> None:
    """Print the table, what is wrong, and the sum."""
    counts = Counter(finding.check for finding in verdict.findings)
    table = Table(box=None, pad_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("what is proved")
    table.add_column("result", no_wrap=True)
    for check, meaning in CHECKS.items():
        table.add_row(check, meaning, f"{counts[check]} wrong" if counts[check] else "ok")
    console.print(table)
    for finding in verdict.findings[:SHOWN]:
        console.print(
            f"{finding.check}: {finding.place}: {finding.what}", markup=False, highlight=False, soft_wrap=True
        )
    if len(verdict.findings) > SHOWN:
        console.print(f"and {len(verdict.findings) - SHOWN} more", highlight=False)
    console.print(
        f"{verdict.requests} requests, {verdict.whole} written + {verdict.failed} failed; "
        f"{verdict.images_written} images written, {verdict.images_failed} failed, {verdict.shards} shards: "
        f"{'all of it is right' if verdict.right else 'NOT right'}",
        highlight=False,
        soft_wrap=True,
    )


def main() -> int:
    """Parse, check, tell."""
    config = parse_config(None, __doc__ or "", fields=("manifest", "output"), title="what to check")
    # Threads of Arrow on top of ours would only take memory.
    pa.set_cpu_count(1)
    verdict = verify(config)
    show(verdict, Console())
    return EXIT_OK if verdict.right else EXIT_INCOMPLETE


if __name__ == "__main__":
    run_script(main)
