"""Measure this project on this machine: the figures that the READMEs quote.

    python jobs/benchmark.py embeddings      lookups in a store of five million embeddings
    python jobs/benchmark.py kernels         steps of the models on the CPU, beside PyTorch's
    python jobs/benchmark.py make-manifest   manifests of CSV, JSONL and products, of one and of four million rows
    python jobs/benchmark.py plan            validating and planning manifests of a million and of ten million rows
    python jobs/benchmark.py resume          starting a finished run of a million images again
    python jobs/benchmark.py scale           how busy many devices are kept

Every sub-command prints a Markdown table; `--help` behind its name lists its options.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# As in generate.py: this source tree first, this folder not at all.
_ROOT = str(Path(__file__).resolve().parent.parent)
sys.path[:] = [
    _ROOT,
    *(entry for entry in sys.path if entry not in (_ROOT, str(Path(__file__).resolve().parent))),
]

from jobs.benchmarks import embeddings, kernels, make_manifest, plan, resume, scale  # noqa: E402
from jobs.cli import EXIT_OK, run_script  # noqa: E402

BENCHMARKS = (embeddings, kernels, make_manifest, plan, resume, scale)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    sub = parser.add_subparsers(required=True, metavar="WHICH")
    for benchmark in BENCHMARKS:
        one = sub.add_parser(
            benchmark.NAME,
            help=benchmark.HELP,
            description=benchmark.HELP,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        benchmark.add_options(one)
        one.set_defaults(run=benchmark.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure, print."""
    given = _parser().parse_args(arguments)
    given.run(given)
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)
