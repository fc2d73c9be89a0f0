# PYTHON_ARGCOMPLETE_OK
"""Prove what an output holds: every request written or failed, nothing lost, doubled or damaged.

    python jobs/verify.py --manifest requests.parquet --output images

Reads the manifest and the output, every byte of it, and nothing else; changes nothing but with --repair. Exit code 0:
all of it is right, or is again. 1: something is not, and the table says what. 2: the command line, the manifest or the
output cannot be used.
"""

from __future__ import annotations

import argparse
import functools
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

from jobs.cli import EXIT_INCOMPLETE, EXIT_OK, parse_command, run_script  # noqa: E402
from jobs.verification.findings import Verdict  # noqa: E402
from jobs.verification.output import verify  # noqa: E402
from manifests.config import RunConfig  # noqa: E402
from manifests.errors import UsageError  # noqa: E402

#: Findings printed; the table counts all of them.
SHOWN = 30

#: What is proved, in the words of the table.
CHECKS = {
    "manifest": "the manifest is the one that the output was made of",
    "shards": "every planned shard is sealed, and there is no other",
    "index": "every planned sample is in the index once, as the manifest asks for it",
    "tar": "tar and index hold the same samples, in the same order, with the same records",
    "images": "every image has the SHA-256 that the index says",
    "embeddings": "embeddings that are kept are of the images in the index, and no image's is missing where one is",
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


def _add_options(parser: argparse.ArgumentParser) -> None:
    own = parser.add_argument_group("what to do")
    own.add_argument(
        "--repair",
        action="store_true",
        help="make what is damaged again, on a device where images are lost, prove it by the recorded checksums, and "
        "replace it; what is right, and what nobody planned, is not touched",
    )
    own.add_argument(
        "--scrub",
        metavar="N/M",
        default="1/1",
        help="read part N of M, every M-th shard: one a night reads all of the output in M nights",
    )


def _share(words: str) -> tuple[int, int]:
    """Which of how many parts, from 0."""
    number, _, count = words.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UsageError(f"option --scrub: should be N/M, with N from 1 to M; got {words!r}")
    return int(number) - 1, int(count)


def _repair(config: RunConfig, verdict: Verdict, console: Console) -> None:
    """Mend what can be mended, and tell."""
    # Ray takes a second or two to import, and a check does without.
    from jobs.monitoring.progress import RunProgress
    from jobs.verification.make_again import make_again
    from jobs.verification.rebuild import Mending
    from jobs.verification.repair import repair

    mendings: list[Mending] = []
    try:
        with RunProgress() as progress:
            progress.phase("repairing")
            # One by one, because the last ones may need a device that is not there.
            for mending in repair(config, verdict, functools.partial(make_again, progress=progress), progress.note):
                mendings.append(mending)
    finally:
        for mending in sorted(mendings, key=lambda one: one.shard):
            done = f"mended: {', '.join(mending.mended)}" if mending.mended else "nothing replaced"
            words = f"NOT mended: {mending.trouble}" if mending.trouble else done
            console.print(f"shard {mending.shard:05d}: {words}", markup=False, highlight=False, soft_wrap=True)


def main() -> int:
    """Parse, check, mend where asked, tell."""
    config, given = parse_command(None, __doc__ or "", _add_options, ("manifest", "output"), "what to check")
    share = _share(given.scrub)
    # Threads of Arrow on top of ours would only take memory.
    pa.set_cpu_count(1)
    console = Console()
    verdict = verify(config, share)
    show(verdict, console)
    if given.repair and verdict.damaged:
        _repair(config, verdict, console)
        verdict = verify(config, share, verdict.damaged)
        console.print("\nwhat was damaged, read again:")
        show(verdict, console)
    return EXIT_OK if verdict.right else EXIT_INCOMPLETE


if __name__ == "__main__":
    run_script(main)
