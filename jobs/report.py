# PYTHON_ARGCOMPLETE_OK
"""Make the report page of an output: what came of the run, with a sample of its pictures, as one offline HTML file.

    python jobs/report.py --output images
    python jobs/report.py --output images --serve
    python jobs/report.py --output images --against images-of-other-settings
    python jobs/report.py --output images --contact-sheet images.png

Works while the run is under way too, on what is committed so far. Writes `_run/report.html`, and the failed requests as
a manifest of their own, `_run/errors.parquet`; changes nothing else. With --serve nothing is written: a server on this
machine shows all images of the output page by page, straight from its shards, until Ctrl-C ends it. With
--contact-sheet one picture of the first images is made instead, inputs and masks beside them. Exit code 0: it is made,
or was served. 2: there is no run.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

# The script must run from any folder, installed or not, so this source tree comes first. Its own folder goes,
# because a module there could hide one of the same name that others import.
_ROOT = str(Path(__file__).resolve().parent.parent)
sys.path[:] = [
    _ROOT,
    *(entry for entry in sys.path if entry not in (_ROOT, str(Path(__file__).resolve().parent))),
]

from jobs.cli import EXIT_OK, Parser, run_script  # noqa: E402
from jobs.reporting.contact_sheet import make_contact_sheet  # noqa: E402
from jobs.reporting.report import PER_BUCKET, PICTURES, make_report  # noqa: E402
from jobs.reporting.server import PORT, serve  # noqa: E402
from manifests import storage  # noqa: E402

#: Images on a contact sheet.
CONTACTS = 60


def main() -> int:
    """Parse, make, say where."""
    parser = Parser(description=__doc__)
    where = parser.add_argument_group("where")
    where.add_argument("--output", required=True, metavar="FOLDER_OR_URL", help="output of generate.py (required)")
    where.add_argument(
        "--against",
        metavar="FOLDER_OR_URL",
        help="another output: its images beside those of the same id, in _run/against.html or with --serve",
    )
    sample = parser.add_argument_group("the sample of images")
    sample.add_argument(
        "--per-bucket",
        type=int,
        default=PER_BUCKET,
        metavar="N",
        help="images shown of a bucket (default: %(default)s)",
    )
    sample.add_argument(
        "--pictures", type=int, default=PICTURES, metavar="N", help="images shown in all (default: %(default)s)"
    )
    sample.add_argument("--seed", type=int, default=0, metavar="N", help="another one shows other images (default: 0)")
    served = parser.add_argument_group("all images")
    served.add_argument("--serve", action="store_true", help="serve all images to a browser of this machine")
    served.add_argument(
        "--port", type=int, default=PORT, metavar="N", help="of the server; 0 takes a free one (default: %(default)s)"
    )
    sheet = parser.add_argument_group("one picture instead of the page")
    sheet.add_argument("--contact-sheet", metavar="FILE_OR_URL", help="PNG to write; what is there is replaced")
    given = parser.parse(None)
    if given.contact_sheet:
        print(make_contact_sheet(storage.absolute(given.output), storage.absolute(given.contact_sheet), CONTACTS))
        return EXIT_OK
    output, against = (place and storage.absolute(place) for place in (given.output, given.against))
    if given.serve:
        with contextlib.suppress(KeyboardInterrupt):
            serve(output, given.port, against, lambda address: print(address, flush=True))
        return EXIT_OK
    print(make_report(output, given.per_bucket, given.pictures, given.seed, against))
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)
