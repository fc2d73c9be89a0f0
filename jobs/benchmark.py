# PYTHON_ARGCOMPLETE_OK
"""Measure this project on this machine: the figures that the READMEs quote.

    python jobs/benchmark.py kernels --graph

Every sub-command prints a Markdown table; `--help` behind its name lists its options.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

# As in generate.py: this source tree first, this folder not at all.
_ROOT = str(Path(__file__).resolve().parent.parent)
sys.path[:] = [
    _ROOT,
    *(entry for entry in sys.path if entry not in (_ROOT, str(Path(__file__).resolve().parent))),
]

from jobs.benchmarks import (  # noqa: E402
    duplicates,
    embeddings,
    kernels,
    make_manifest,
    peers,
    plan,
    resume,
    scale,
    schedules,
    scores,
)
from jobs.cli import EXIT_OK, Parser, run_script  # noqa: E402

BENCHMARKS = (duplicates, embeddings, kernels, make_manifest, peers, plan, resume, scale, schedules, scores)


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    sub = parser.add_subparsers(required=True, metavar="WHICH", title="what to measure")
    for benchmark in BENCHMARKS:
        one = sub.add_parser(
            benchmark.NAME, help=benchmark.HELP, description=benchmark.HELP, usage="%(prog)s [options]"
        )
        benchmark.add_options(one.add_argument_group("how much of it"))
        one.set_defaults(run=benchmark.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure, print."""
    given = _parser().parse(arguments)
    given.run(given)
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)
