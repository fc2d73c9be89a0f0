# PYTHON_ARGCOMPLETE_OK
"""Say how good the images of an output are: their scores, and their distance from a reference.

    python jobs/evaluate.py --output images
    python jobs/evaluate.py --output images --reference photographs --json

Without a reference it reads indexes only. With one it compares embeddings by the CLIP of the run's checkpoint: CMMD,
and the Frechet distance. A reference is another output, a folder of images, tars of WebDataset, or a file that
--save-statistics has written. Exit code 0: done. 1: the model or the storage failed. 2: it cannot be done like this.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

# As in generate.py: this source tree first, this folder not at all.
_ROOT = str(Path(__file__).resolve().parent.parent)
sys.path[:] = [
    _ROOT,
    *(entry for entry in sys.path if entry not in (_ROOT, str(Path(__file__).resolve().parent))),
]

from jobs.cli import EXIT_OK, Parser, one_spelling, run_script  # noqa: E402
from jobs.evaluation.job import Wish, evaluate, table  # noqa: E402
from jobs.exporting.selection import Choice  # noqa: E402
from manifests import storage  # noqa: E402
from workers.device.device import device_here  # noqa: E402


def _parser() -> Parser:
    parser = Parser(description=__doc__, usage="%(prog)s --output FOLDER_OR_URL [--reference WHERE] [options]")
    what = parser.add_argument_group("what to evaluate")
    what.add_argument("--output", required=True, metavar="FOLDER_OR_URL", help="output of generate.py (required)")
    what.add_argument("--where", metavar="CONDITION", help="of SQL: only these images, as of export.py")
    what.add_argument("--limit", type=int, metavar="N", help="images at most")
    what.add_argument("--shuffle", type=int, metavar="SEED", help="with --limit a random sample")
    what.add_argument(
        "--columns", nargs="+", default=[], metavar="NAME", help="columns of numbers (default: all scores there are)"
    )
    against = parser.add_argument_group("against what")
    against.add_argument(
        "--reference", metavar="WHERE", help="another output, a folder of images, tars, or a file of statistics (.npz)"
    )
    against.add_argument("--save-statistics", metavar="FILE", help="keep what is compared of the output as FILE.npz")
    against.add_argument("--encode", action="store_true", help="embed all images, also where embeddings are kept")
    parser.add_argument_group("what is printed").add_argument(
        "--json", action="store_true", help="one JSON object in place of tables"
    )
    parser.add_model_options()
    return parser


def _wish(given: argparse.Namespace) -> Wish:
    return Wish(
        output=storage.absolute(given.output),
        choice=Choice(given.where, given.limit, given.shuffle),
        columns=tuple(given.columns),
        reference=None if given.reference is None else storage.absolute(given.reference),
        save=None if given.save_statistics is None else storage.absolute(given.save_statistics),
        encode=given.encode,
        checkpoint=one_spelling(given.checkpoint) if given.checkpoint else None,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, evaluate, print."""
    given = _parser().parse(arguments)
    found = evaluate(_wish(given), device_here(given.device))
    print(json.dumps(asdict(found), indent=2) if given.json else table(found))
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)
