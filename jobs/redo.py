# PYTHON_ARGCOMPLETE_OK
"""Make one image of an output again from its record, in this process, and say whether it is the stored one.

    python jobs/redo.py --output images --key 000000003
    python jobs/redo.py --output images --key 000000003 --set steps=50

The models are loaded as a run loads them and draw the same noise, without Ray. Pixels are compared with the stored
image's; where they differ, what may be why is told. So that they need not, the image is made in a call of as many rows
as in the run, filled up with copies; --alone makes it in a quicker call of one. With --set the image is another one, is
made alone, and nothing is compared. Exit code 0: it is made. 1: the models or the storage failed. 2: there is no such
image, or it cannot be made like this.
"""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

# As in generate.py: this source tree first, this folder not at all.
_ROOT = str(Path(__file__).resolve().parent.parent)
sys.path[:] = [
    _ROOT,
    *(entry for entry in sys.path if entry not in (_ROOT, str(Path(__file__).resolve().parent))),
]

from PIL import Image  # noqa: E402

from jobs.cli import EXIT_OK, Parser, one_spelling, run_script  # noqa: E402
from jobs.replay.comparison import compare, reasons  # noqa: E402
from jobs.replay.making import Made, make  # noqa: E402
from jobs.replay.recorded import Recorded, find  # noqa: E402
from jobs.replay.request import parse_changes, request_batch  # noqa: E402
from manifests import storage  # noqa: E402
from manifests.errors import SUCCESS, UsageError  # noqa: E402
from manifests.scores import NONE  # noqa: E402
from workers.device.device import DeviceKind, device_here  # noqa: E402
from workers.stages.encode import encode_image  # noqa: E402


def _parser() -> Parser:
    parser = Parser(description=__doc__, usage="%(prog)s --output FOLDER_OR_URL --key KEY [options]")
    which = parser.add_argument_group("which image")
    which.add_argument("--output", required=True, metavar="FOLDER_OR_URL", help="output of generate.py (required)")
    which.add_argument(
        "--key", required=True, metavar="KEY", help="name of its files, column key of the index (required)"
    )
    how = parser.add_argument_group("what to make of it")
    how.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another value of a column of its request, such as steps=50; NAME alone: none. May come several times",
    )
    how.add_argument("--alone", action="store_true", help="in a device call of one row, however many the run's had")
    how.add_argument("--to", metavar="FILE_OR_URL", help="the PNG file to write (default: KEY.png in this folder)")
    how.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.add_model_options()
    return parser


def _refuse_failed(recorded: Recorded) -> None:
    row = recorded.row
    if row["status"] != SUCCESS:
        raise UsageError(
            f"--key {row['key']}: the run made no image of it ({row['status']}: {row['error_message']}); change what "
            "was wrong with --set"
        )


def _verdict(recorded: Recorded, stored: bytes, made: Made, kind: DeviceKind, rows: tuple[int, int]) -> list[str]:
    if recorded.full_call(kind) is not None:
        # Whatever is in them.
        rows = (rows[0], rows[0])
    comparison = compare(stored, made.encoded)
    whys = reasons(recorded.report, recorded.config, kind, rows) if comparison.different else []
    return [comparison.in_words, *(f"  {why}" for why in whys)]


def main() -> int:
    """Parse, find, make, compare, write."""
    given = _parser().parse(None)
    changes = parse_changes(given.set)
    target = storage.absolute(given.to or f"{given.key}.png")
    recorded = find(storage.absolute(given.output), given.key)
    if not changes:
        _refuse_failed(recorded)
    if storage.exists(target) and not given.overwrite:
        raise UsageError(f"--to {target}: there is such a file; --overwrite replaces it")
    stored, together = (None, 1) if changes else (recorded.image(), recorded.together())
    rows = 1 if given.alone else together
    batch = request_batch(recorded, changes, rows)
    place = {"checkpoint": one_spelling(given.checkpoint)} if given.checkpoint else {}
    unscored = {"scores": NONE, "keep_clip": False}
    config = recorded.config.model_copy(update={"share_devices": False, "dump_latents": False, **unscored, **place})
    kind, began = device_here(given.device), time.monotonic()
    made = make(recorded, batch, config, kind, lambda doing: print(doing, file=sys.stderr, flush=True))
    size = (made.row["width"], made.row["height"])
    image = Image.frombytes("RGB", size, made.pixels)
    storage.write_atomic(target, encode_image(image, made.row, config.model_copy(update={"image_format": "png"})))
    print(f"{target}: {size[0]} x {size[1]}, made on {kind} in {time.monotonic() - began:.1f} s")
    told = (
        ["with " + shlex.join(given.set)]
        if stored is None
        else _verdict(recorded, stored, made, kind, (together, rows))
    )
    print(*told, sep="\n")
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)
