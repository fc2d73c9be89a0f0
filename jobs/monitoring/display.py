"""The facts of a run on a terminal of any size: what is least needed goes first where there is little room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from jobs.monitoring.facts import INVALID, Count, RunFacts
from jobs.monitoring.lines import (
    actor_words,
    batches_words,
    brief,
    briefest,
    failure_words,
    left_words,
    lost_words,
    rate_words,
    share_words,
    work_words,
)
from jobs.monitoring.pace import duration

#: From so many columns on the pools stand beside the tasks; below the other, only one line is shown.
WIDE, NARROW = 110, 56


@dataclass(frozen=True)
class Screen:
    """A renderable of rich that fits the terminal.

    Attributes:
        facts: of the run.
        title: for its frame; the phase, where there is none.
        remarks: lines that stay as long as there is room for a frame.
    """

    facts: RunFacts
    title: str = ""
    remarks: tuple[str, ...] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = (options.height or options.size.height) - 1
        for candidate in self._candidates(options.max_width):
            lines = console.render_lines(candidate, options.update(height=None), pad=False)
            if len(lines) <= room:
                break
        else:
            text = brief(self.facts) if options.max_width >= NARROW else briefest(self.facts)
            one_line = Text(text, no_wrap=True, overflow="ellipsis")
            lines = console.render_lines(one_line, options.update(height=None), pad=False)
        for line in lines:
            # What the terminal has no letter for, an ellipsis or somebody's id, must not move the frame.
            yield from (_in_letters_of(options.encoding, segment) for segment in line)
            yield Segment.line()

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, options.max_width)

    def _candidates(self, width: int) -> Iterator[RenderableType]:
        """The whole of it, then less and less; nothing where the terminal is too narrow for a frame."""
        facts = self.facts
        if width < NARROW:
            return
        wide = width >= WIDE
        for failures in range(len(facts.failures), -1, -1):
            yield self._frame(_body(facts, wide, failures))
        facts = facts.model_copy(update={"pools": tuple(p.model_copy(update={"tflops": None}) for p in facts.pools)})
        yield self._frame(_body(facts, wide, 0))
        yield self._frame([_counts(facts, each=False), _totals(facts), *([_pools(facts)] if facts.pools else [])])
        yield self._frame([_counts(facts, each=False), _totals(facts)])

    def _frame(self, body: Sequence[RenderableType]) -> Panel:
        facts = self.facts
        return Panel(
            Group(*body, *(Text(remark, overflow="ellipsis") for remark in self.remarks)),
            title=Text(self.title or facts.phase, style="bold", overflow="ellipsis"),
            title_align="left",
            subtitle=Text(duration(facts.seconds), style="dim"),
            subtitle_align="right",
            box=box.ROUNDED,
            border_style="dim",
            padding=(0, 1),
        )


def _in_letters_of(encoding: str, segment: Segment) -> Segment:
    return Segment(segment.text.encode(encoding, "replace").decode(encoding), segment.style, segment.control)


def _body(facts: RunFacts, wide: bool, failures: int) -> list[RenderableType]:
    parts: list[RenderableType] = [_counts(facts), *([""] if facts.counts else []), _totals(facts)]
    if facts.pools and wide:
        beside = Table.grid(padding=(0, 4), expand=True)
        beside.add_column(ratio=1)
        beside.add_column(ratio=1)
        beside.add_row(Group(*parts), _pools(facts))
        parts = [beside]
    elif facts.pools:
        parts += ["", _pools(facts)]
    if failures:
        parts += ["", Text("newest failures", style="dim")]
        parts += [
            Text(failure_words(failure), style="red", no_wrap=True, overflow="ellipsis")
            for failure in facts.failures[:failures]
        ]
    return parts


def _counts(facts: RunFacts, each: bool = True) -> RenderableType:
    """Images done, failed and planned: of each task, and of all of them together."""
    if not facts.counts:
        return Text("nothing to count yet", style="dim")
    rows = list(facts.counts) if each or len(facts.counts) == 1 else []
    if len(facts.counts) > 1:
        rows.append(Count(name="all", total=facts.total, done=facts.done, failed=facts.failed))
    table = Table(box=None, expand=True, pad_edge=False, header_style="dim")
    table.add_column("images", no_wrap=True)
    table.add_column("", ratio=1, min_width=8)
    for name in ("", "done", "total", "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        # Rounded down: 100 % is said of what is done.
        percent = 100 * row.done // row.total if row.total else 100
        table.add_row(
            "invalid rows" if row.name == INVALID else row.name,
            ProgressBar(total=max(1, row.total), completed=row.done if row.total else 1),
            f"{percent}%",
            f"{row.done:,}",
            f"{row.total:,}",
            Text(f"{row.failed:,}", style="red" if row.failed else "dim"),
        )
    return table


def _totals(facts: RunFacts) -> RenderableType:
    """Rates, time left, shards: a line each."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    if facts.rate is not None and facts.overall_rate is not None:
        grid.add_row("rate", f"{rate_words(facts.rate)} now, {rate_words(facts.overall_rate)} overall")
    elif facts.counts and facts.done < facts.total:
        grid.add_row("rate", Text("known after a few batches", style="dim"))
    if facts.left is not None:
        grid.add_row("left", left_words(facts.left))
    works = ", ".join(f"{pool.name} {work_words(pool)}" for pool in facts.pools if pool.tflops is not None)
    if works:
        grid.add_row("TFLOP/s", f"{works} (a device in calls)")
    if facts.shards:
        grid.add_row("shards", f"{facts.sealed:,} of {facts.shards:,} sealed")
    if facts.lost:
        grid.add_row("lost", Text(lost_words(facts), style="yellow"))
    return grid


def _pools(facts: RunFacts) -> RenderableType:
    table = Table(box=None, expand=True, pad_edge=False, header_style="dim")
    table.add_column("pool", no_wrap=True)
    table.add_column("actors", ratio=1)
    table.add_column("in calls", justify="right", no_wrap=True)
    table.add_column("waiting", justify="right", no_wrap=True)
    for pool in facts.pools:
        waiting = "" if pool.finished else batches_words(pool.waiting)
        table.add_row(pool.name, actor_words(pool), share_words(pool), waiting)
    return table
