# PYTHON_ARGCOMPLETE_OK
"""Check a manifest and say what a run of it would do, and what it would take, without doing any of it.

    python jobs/plan.py --manifest requests.parquet --output images

Takes the options of generate.py and keeps nothing. Every row is validated; the table shows what would be made, what
the output holds already, and which rows cannot be made and why. Exit code 0: every row can be made. 3: some cannot.
2: nothing can run: the command line, the manifest, the checkpoint or the output is of no use, or every row is wrong.
"""

from __future__ import annotations

import argparse
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

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from jobs.cli import EXIT_FAILED_ROWS, EXIT_OK, EXIT_USAGE, parse_command, run_script  # noqa: E402
from jobs.cost.price import CHIPS, USUAL_CHIP, USUAL_PART, Rate  # noqa: E402
from jobs.cost.step_times import StepTimes  # noqa: E402
from jobs.dry_run.input_check import InputCheck, check_inputs  # noqa: E402
from jobs.dry_run.report import BucketPlan, DryRun, PaperPrice, dry_run  # noqa: E402
from jobs.limits.disk_space import in_units  # noqa: E402
from jobs.monitoring.pace import duration  # noqa: E402
from jobs.monitoring.progress import RunProgress  # noqa: E402
from jobs.run import run_folder  # noqa: E402
from jobs.run.parallel_planning import plan_job  # noqa: E402
from manifests.call_limit import CallLimit  # noqa: E402
from manifests.config import RunConfig  # noqa: E402
from manifests.errors import UsageError  # noqa: E402
from manifests.planning.plan import Plan  # noqa: E402
from manifests.planning.sources import describe  # noqa: E402
from manifests.planning.window_summary import Problem  # noqa: E402
from workers.checkpoints import locations  # noqa: E402

#: Buckets that the table shows; the JSON has all of them.
SHOWN_BUCKETS = 20


def _add_options(parser: argparse.ArgumentParser) -> None:
    own = parser.add_argument_group("what to find out")
    own.add_argument(
        "--check-inputs",
        action="store_true",
        help="read and decode every input image and mask too, and count the tokens of long prompts",
    )
    own.add_argument(
        "--probe",
        action="store_true",
        help="time two batches of each bucket now, on the devices; needs room under OUTPUT/_run/probe meanwhile",
    )
    own.add_argument(
        "--chip",
        metavar="NAME",
        help=f"whose peak the price on paper takes: {', '.join(CHIPS)} (default: {USUAL_CHIP})",
    )
    own.add_argument("--peak", type=float, metavar="TFLOPS", help="that a card could do per second, of another chip")
    own.add_argument(
        "--utilization",
        type=float,
        metavar="PART",
        help=f"of the peak, what the models are taken to reach (default: {USUAL_PART})",
    )
    own.add_argument("--json", action="store_true", help="print JSON for machines instead of the table")


def look(config: RunConfig, given: argparse.Namespace) -> DryRun:
    """Plan, and find out what the options ask for.

    Raises:
        UsageError: a setting or the manifest cannot be used.
        StorageError: manifest or output cannot be read.
    """
    if given.probe and config.times_of is not None:
        raise UsageError("options --probe and --times-of: both say where times come from; give one")
    rate = Rate.of(given.chip, given.peak, given.utilization)
    with RunProgress() as progress:
        progress.phase("planning")
        began = time.monotonic()
        config = run_folder.as_begun(config)
        planned = plan_job(config, run_folder.ends_of(config))
        seconds = time.monotonic() - began
        inputs = _check_inputs(config, planned, progress) if given.check_inputs else None
        times = _probe(config, planned, progress) if given.probe else run_folder.known_times(config)
    return dry_run(config, planned, seconds, times, inputs, rate)


def _probe(config: RunConfig, planned: Plan, progress: RunProgress) -> tuple[str, StepTimes] | None:
    if not planned.samples:
        return None
    # Here: everything else does without Ray Data.
    from jobs.dry_run.probe import BATCHES, probe

    return f"{BATCHES} batches of each bucket, timed now", probe(config, planned, progress)


def _check_inputs(config: RunConfig, planned: Plan, progress: RunProgress) -> InputCheck:
    # The tokenizers are the checkpoint's.
    locations.check(config.checkpoint, planned.samples_by_task)
    progress.phase("checking inputs of")
    progress.start(planned.samples)
    return check_inputs(config, planned, lambda images: progress.add(images, 0))


def show(found: DryRun, console: Console) -> None:
    """Print what was found for a person."""
    _show_counts(found, console)
    if found.buckets:
        _show_buckets(found, console)
    for title, problems in (("Cannot be made", found.problems), ("May not look as meant", found.warnings)):
        if problems:
            _show_problems(title, problems, console)
    _say(console, _cost(found))
    if found.paper is not None:
        _say(console, _on_paper(found.paper))


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _show_counts(found: DryRun, console: Console) -> None:
    done = found.done
    shards = f"{done.sealed:,} of {done.shards:,} shards committed, {done.staged:,} batches staged"
    padding = f"{100 * found.padding:.2f} % padding"
    limit = found.batch_size if found.batch_pixels is None else CallLimit(found.batch_size, found.batch_pixels)
    for place, line in enumerate(describe(found.sources)):
        _say(console, f"{'' if place else 'source':<8}{line}")
    copies = f" ({found.copies:,} of them copies)" if found.copies else ""
    _say(console, f"rows    {found.rows:,}: {found.rows - found.failing:,} can be made, {found.failing:,} cannot")
    for task, rows in found.rows_by_task.items():
        _say(console, f"        {rows:,} {task}, {found.images_by_task[task]:,} images")
    _say(
        console,
        f"plan    {found.images:,} images{copies}, {found.batches:,} batches of up to {limit}, "
        f"{padding}, {found.shards:,} shards",
    )
    _say(console, f"output  {found.output}: {shards}, {done.images_left:,} images left")
    if found.disk is not None and found.disk.doubt is not None:
        _say(console, f"disk    {found.disk.doubt}")


def _show_buckets(found: DryRun, console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    costs = ("s/batch", "device time") if found.estimate is not None else ()
    for column in ("images", "batches", "of", "padding", *costs):
        table.add_column(column, justify="right", no_wrap=True)
    # The last one, because it is the one that may be broken into lines.
    table.add_column("bucket")
    for planned in found.buckets[:SHOWN_BUCKETS]:
        cells = [f"{planned.images:,}", f"{planned.batches:,}", str(planned.rows_per_call)]
        cells.append(f"{100 * planned.padding:.1f} %")
        if planned.cost is not None:
            sign = "" if planned.cost.measured else "~"
            seconds = planned.cost.prior_seconds + planned.cost.decoder_seconds
            cells += [f"{sign}{_number(seconds)}", f"{sign}{duration(3600 * planned.cost.device_hours)}"]
        table.add_row(*cells, _name(planned))
    console.print()
    console.print(table, highlight=False)
    if len(found.buckets) > SHOWN_BUCKETS:
        _say(console, f"and {len(found.buckets) - SHOWN_BUCKETS} more buckets (--json has all of them)")


def _name(planned: BucketPlan) -> str:
    bucket = planned.bucket
    words = [f"{bucket.task} {bucket.width}x{bucket.height}", f"{bucket.steps} steps cfg {bucket.guidance_scale:g}"]
    words.append(f"prior {bucket.prior_steps} cfg {bucket.prior_guidance_scale:g}")
    if bucket.strength is not None:
        words.append(f"strength {bucket.strength:g}")
    if bucket.has_negative:
        words.append("negative")
    return ", ".join(words)


def _show_problems(title: str, problems: Sequence[Problem], console: Console) -> None:
    _say(console, f"\n{title} (rows count from 0):")
    width = max(len(f"{problem.count:,}") for problem in problems)
    for problem in problems:
        more = ", …" if problem.count > len(problem.rows) else ""
        example = problem.example.removeprefix(f"{problem.column}: ")
        rows = ", ".join(map(str, problem.rows))
        _say(console, f"  {problem.count:>{width},}  {problem.column}: {problem.reason}")
        _say(console, f"  {'':{width}}  rows {rows}{more}, the first: {example}")


def _cost(found: DryRun) -> str:
    cost = found.estimate
    if cost is None:
        return "\nestimate: none, because nothing was measured yet (--probe, or --times-of an earlier output)"
    scaled = f"; {cost.scaled_buckets} buckets marked ~ are scaled from others" if cost.scaled_buckets else ""
    prior, decoder = duration(3600 * cost.prior_hours), duration(3600 * cost.decoder_hours)
    hours = f"prior {prior} + decoder {decoder} of one device ({cost.device})"
    pools = f"{duration(3600 * cost.hours)} on {cost.prior_actors} prior and {cost.decoder_actors} decoder actors"
    left = ""
    if found.done.images_left < found.images:
        part = found.done.images_left / found.images
        left = f"; {100 * part:.1f} % of it is left, {duration(3600 * cost.hours * part)}"
    return f"\nestimate: {hours}, {pools}, {in_units(cost.bytes)}{left}\n          from {cost.source}{scaled}"


def _on_paper(price: PaperPrice) -> str:
    work = price.prior_tflop + price.decoder_tflop
    hours = duration(3600 * price.card_hours)
    chip = f" ({price.chip})" if price.chip else ""
    return (
        f"on paper: {_number(work)} TFLOP, {price.prior_tflop / work:.1%} of it the prior's: {hours} of one card at "
        f"{price.part:.0%} of {price.peak_tflops:g} TFLOP/s{chip}"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> int:
    """Parse, look, tell."""
    config, given = parse_command(None, __doc__ or "", _add_options)
    found = look(config, given)
    if given.json:
        print(found.model_dump_json(indent=2))
    else:
        show(found, Console())
    if not found.can_run:
        why = found.refused or f"none of the {found.rows} rows can be made"
        print(f"error: nothing can run: {why}", file=sys.stderr)
        return EXIT_USAGE
    return EXIT_FAILED_ROWS if found.failing else EXIT_OK


if __name__ == "__main__":
    run_script(main)
