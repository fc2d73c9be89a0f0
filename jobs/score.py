# PYTHON_ARGCOMPLETE_OK
"""Add scores to an output that is finished: columns of its indexes, computed from its images.

    python jobs/score.py --output images --scores all --keep-clip
    python jobs/score.py --output images --duplicates image_phash:4

Images come out of the shards, inputs from the manifest, the prior's embeddings from the store; CLIP is the checkpoint's
own. It runs on all devices of the cluster that RAY_ADDRESS names, or of this machine; on one device, without Ray. Each
shard is sealed anew, so what is done stays done: the same command goes on where an earlier start was ended, and several
share the work with --shards. Scores that the output has are kept. Near duplicates and ranks are found in all shards
together, from columns and embeddings that are there, without a model. Exit code 0: all of it has them. 1: the models,
the devices or the storage failed. 2: there is no finished output, or it cannot be scored like this.
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
from jobs.ranking import rules as ranking  # noqa: E402
from jobs.ranking.job import Ranked, rank  # noqa: E402
from jobs.run import run_folder  # noqa: E402
from jobs.scoring.job import score  # noqa: E402
from manifests import storage  # noqa: E402
from manifests.config import RunConfig  # noqa: E402
from manifests.errors import UsageError  # noqa: E402
from manifests.scores import NAMES, NONE, PATTERN, parse  # noqa: E402
from workers.device.device import device_here  # noqa: E402


def _parser() -> Parser:
    parser = Parser(description=__doc__, usage="%(prog)s --output FOLDER_OR_URL [--scores NAMES] [options]")
    what = parser.add_argument_group("what to score")
    what.add_argument("--output", required=True, metavar="FOLDER_OR_URL", help="output of generate.py (required)")
    what.add_argument(
        "--scores", default=NONE, metavar="NAMES", help=f"{', '.join(NAMES)}, with commas between, or all"
    )
    what.add_argument(
        "--aesthetic-weights",
        metavar="PATH_OR_URL",
        help="LAION's aesthetic predictor, for aesthetic_score: .safetensors, .npz, or PyTorch's .pth",
    )
    what.add_argument(
        "--keep-clip",
        action="store_true",
        help="keep CLIP's embeddings of the images in _run/clip, and make those again that are damaged or gone",
    )
    what.add_argument(
        "--manifest",
        nargs="+",
        metavar="PATH_OR_URL",
        help="where the run's manifest lies now (default: where it had it)",
    )
    what.add_argument("--shards", metavar="I/N", default="1/1", help="every N-th shard from the I-th on")
    what.add_argument("--decoder-actors", metavar="N", default="auto", help="on a cluster; auto is one per device")
    ranks = parser.add_argument_group("how images stand among the others")
    ranks.add_argument(
        "--duplicates",
        metavar="RULES",
        help="find near duplicates: image_phash:4 (hashes differ in 4 bits at most), clip:0.95 (embeddings have a "
        "higher cosine), or both, image_phash:4,clip:0.95",
    )
    ranks.add_argument(
        "--best-by",
        metavar="COLUMN",
        help="the near duplicate to keep has the highest value (default: the smallest key)",
    )
    ranks.add_argument(
        "--best-of-request", metavar="COLUMN", help="rank the images of each request, the highest value first"
    )
    parser.add_model_options()
    return parser


def _config(given: argparse.Namespace) -> RunConfig:
    output = storage.absolute(given.output)
    changes = {"shards": given.shards, "stage": "all", "device": given.device, "decoder_actors": given.decoder_actors}
    if given.manifest:
        changes["manifest"] = tuple(storage.absolute(path) for path in given.manifest)
    if given.aesthetic_weights:
        changes["aesthetic_weights"] = storage.absolute(given.aesthetic_weights)
    if given.checkpoint:
        changes["checkpoint"] = one_spelling(given.checkpoint)
    return run_folder.settings(output, **changes)


def _tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _print_ranked(ranked: Ranked, rules: ranking.Rules) -> None:
    print(f"{ranked.shards:,} shards have {', '.join(rules.columns)} now, {ranked.before:,} had all of it before")
    if rules.compares:
        print(
            f"  of {ranked.images:,} images {ranked.duplicates:,} are near duplicates of one to keep, in "
            f"{ranked.groups:,} groups"
        )
    if ranked.not_compared:
        print(f"  {ranked.not_compared:,} images could not be compared: they have no hash or embedding")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, score, tell."""
    given = _parser().parse(arguments)
    if not re.match(PATTERN, given.scores):
        raise UsageError(
            f"option --scores: should be {', '.join(NAMES)}, with commas between, or all; got {given.scores!r}"
        )
    config = _config(given)
    names = parse(given.scores, config.aesthetic_weights is not None)
    rules = ranking.parse(given.duplicates, given.best_by, given.best_of_request)
    if not names and not given.keep_clip and not rules.columns:
        raise UsageError("nothing to do; give --scores, --keep-clip, --duplicates or --best-of-request")
    if names or given.keep_clip:
        done = score(config, names, given.keep_clip, device_here(given.device), _tell)
        what = [*names, *(["the embeddings"] if given.keep_clip else [])]
        print(f"{done.shards:,} shards have {', '.join(what)} now, {done.before:,} had all of it before")
        for name, count in sorted(done.images.items()):
            print(f"  {name}: {count:,} images")
    if rules.columns:
        _print_ranked(rank(config, rules, _tell), rules)
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)
