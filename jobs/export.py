# PYTHON_ARGCOMPLETE_OK
"""Hand images of an output on: those that a condition takes, in a layout that other tools open.

    python jobs/export.py --output images --layout folder --to small
    python jobs/export.py --output images --layout webdataset --to some

folder: image files and metadata.parquet beside them. huggingface: Parquet with the images inside, and a dataset card.
webdataset: shards like those of the output. A condition is SQL over the columns of the index (a text stands in single
quotes); only rows with an image are taken. The same command goes on where an earlier start was ended; a folder with
other files in it is never written to. Exit code 0: all of it is there. 1: the storage failed. 2: it cannot be done like
this, and nothing was written.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

# As in generate.py: this source tree first, this folder not at all.
_ROOT = str(Path(__file__).resolve().parent.parent)
sys.path[:] = [
    _ROOT,
    *(entry for entry in sys.path if entry not in (_ROOT, str(Path(__file__).resolve().parent))),
]

from jobs.cli import EXIT_OK, Parser, run_script  # noqa: E402
from jobs.exporting import push  # noqa: E402
from jobs.exporting.job import Wish, export, refuse_unfit  # noqa: E402
from jobs.exporting.layouts import LAYOUTS  # noqa: E402
from jobs.exporting.selection import Choice  # noqa: E402
from jobs.limits.disk_space import in_units  # noqa: E402
from manifests import storage  # noqa: E402

#: Seconds between two lines about files that are done.
_PAUSE = 5.0


def _parser() -> Parser:
    parser = Parser(description=__doc__, usage="%(prog)s --output FOLDER_OR_URL --layout LAYOUT --to FOLDER [options]")
    where = parser.add_argument_group("where")
    where.add_argument("--output", required=True, metavar="FOLDER_OR_URL", help="output of generate.py (required)")
    where.add_argument("--to", required=True, metavar="FOLDER_OR_URL", help="an empty or new folder (required)")
    where.add_argument("--layout", required=True, choices=tuple(LAYOUTS), help="what is made (required)")
    which = parser.add_argument_group("which images")
    which.add_argument("--where", metavar="CONDITION", help="of SQL, such as \"task = 'inpaint' and steps >= 50\"")
    which.add_argument("--limit", type=int, metavar="N", help="images at most")
    which.add_argument("--shuffle", type=int, metavar="SEED", help="a random order; with --limit a random sample")
    form = parser.add_argument_group("their form")
    form.add_argument(
        "--resize", type=int, metavar="PIXELS", help="of the shorter side; larger images are made smaller, none larger"
    )
    form.add_argument(
        "--rows-per-file", type=int, default=1000, metavar="N", help="of Parquet files and tars (default: %(default)s)"
    )
    hub = parser.add_argument_group("with --layout huggingface")
    hub.add_argument("--license", metavar="NAME", help="for the card, as the Hub spells it: cc-by-4.0, other, …")
    hub.add_argument("--title", metavar="TEXT", help="of the card (default: Images by Kandinsky 2.1)")
    hub.add_argument("--push", metavar="OWNER/NAME", help="push it as this dataset to the Hugging Face Hub")
    hub.add_argument("--public", action="store_true", help="for everybody, where --push makes the dataset")
    return parser


class _Lines:
    """Says how far it is, now and then."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, words: str) -> None:
        if time.monotonic() - self._last >= _PAUSE:
            self._last = time.monotonic()
            print(words, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, export, push, tell."""
    given = _parser().parse(arguments)
    wish = Wish(
        output=storage.absolute(given.output),
        to=storage.absolute(given.to),
        layout=given.layout,
        choice=Choice(given.where, given.limit, given.shuffle),
        resize=given.resize,
        rows_per_file=given.rows_per_file,
        licence=given.license,
        title=given.title,
        name=given.push,
    )
    refuse_unfit(wish)
    if given.push is not None:
        push.check(given.push)
    done = export(wish, _Lines())
    now = f"{done.made:,} now" if done.made else "all of them before"
    print(
        f"{done.contents.images:,} images in {done.parts:,} parts ({now}), {in_units(done.contents.bytes)}: {wish.to}"
    )
    if done.without_image:
        print(f"{done.without_image:,} rows that the condition takes have no image and are left out")
    if not done.whole:
        print("the run of this output has not finished; only what it has committed is here")
    if given.push is not None:
        print(push.push(wish.to, given.push, given.public))
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)
