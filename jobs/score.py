# PYTHON_ARGCOMPLETE_OK
"""Add scores to an output that is finished: columns of its indexes, computed from its images.

    python jobs/score.py --output images --scores all

Images come out of the shards, inputs from the manifest, the prior's embeddings from the store; CLIP is the checkpoint's
own. Each shard is sealed anew, so what is done stays done: the same command goes on where an earlier start was ended,
and several share the work with --shards. Scores that the output has are kept. Exit code 0: all of it has them. 1: the
models or the storage failed. 2: there is no finished output, or it cannot be scored like this.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

# As in generate.py: this source tree first, this folder not at all.
_ROOT = str(Path(__file__).resolve().parent.parent)
sys.path[:] = [
    _ROOT,
    *(entry for entry in sys.path if entry not in (_ROOT, str(Path(__file__).resolve().parent))),
]

from jobs.cli import EXIT_OK, Parser, one_spelling, run_script  # noqa: E402
from jobs.run import run_folder  # noqa: E402
from jobs.scoring.job import score  # noqa: E402
from manifests import storage  # noqa: E402
from manifests.config import RunConfig  # noqa: E402
from manifests.errors import UsageError  # noqa: E402
from manifests.scores import NONE, PATTERN, SCORES, parse  # noqa: E402
from workers.device.device import device_here  # noqa: E402


def _parser() -> Parser:
    parser = Parser(description=__doc__, usage="%(prog)s --output FOLDER_OR_URL --scores NAMES [options]")
    what = parser.add_argument_group("what to score")
    what.add_argument("--output", required=True, metavar="FOLDER_OR_URL", help="output of generate.py (required)")
    what.add_argument(
        "--scores", required=True, metavar="NAMES", help=f"{', '.join(SCORES)}, with commas between, or all (required)"
    )
    what.add_argument(
        "--manifest",
        nargs="+",
        metavar="PATH_OR_URL",
        help="where the run's manifest lies now (default: where it had it)",
    )
    what.add_argument("--shards", metavar="I/N", default="1/1", help="every N-th shard from the I-th on (default: 1/1)")
    parser.add_model_options()
    return parser


def _config(given: argparse.Namespace) -> RunConfig:
    output = storage.absolute(given.output)
    changes = {"shards": given.shards, "stage": "all"}
    if given.manifest:
        changes["manifest"] = tuple(storage.absolute(path) for path in given.manifest)
    if given.checkpoint:
        changes["checkpoint"] = one_spelling(given.checkpoint)
    return run_folder.settings(output, **changes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, score, tell."""
    given = _parser().parse(arguments)
    if not re.match(PATTERN, given.scores) or given.scores == NONE:
        raise UsageError(
            f"option --scores: should be {', '.join(SCORES)}, with commas between, or all; got {given.scores!r}"
        )
    names = parse(given.scores)
    done = score(
        _config(given), names, device_here(given.device), lambda words: print(words, file=sys.stderr, flush=True)
    )
    print(f"{done.shards:,} shards have {', '.join(names)} now, {done.before:,} had all of it before")
    for name, count in sorted(done.images.items()):
        print(f"  {name}: {count:,} images")
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)
