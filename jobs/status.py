# PYTHON_ARGCOMPLETE_OK
"""Show how a run goes on, from any machine that reads its output: whether it lives, how far it is, what fails.

    python jobs/status.py --output images --watch

Reads the status that the run's driver renews under `_run/`, and changes nothing. Of several jobs on one output
(`generate.py --shards`) all are shown, and their sum. Exit code 0: it runs, or is done. 1: it has died or ended
early. 2: there is no run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

# The script must run from any folder, installed or not, so this source tree comes first. Its own folder goes,
# because a module there could hide one of the same name that others import.
_ROOT = str(Path(__file__).resolve().parent.parent)
sys.path[:] = [
    _ROOT,
    *(entry for entry in sys.path if entry not in (_ROOT, str(Path(__file__).resolve().parent))),
]

from rich.console import Console  # noqa: E402
from rich.live import Live  # noqa: E402

from jobs.cli import EXIT_INCOMPLETE, EXIT_OK, Parser, run_script  # noqa: E402
from jobs.monitoring.display import Screen  # noqa: E402
from jobs.monitoring.lines import brief, details  # noqa: E402
from jobs.run.watching import OutputState, Watcher  # noqa: E402
from manifests import storage  # noqa: E402

#: Seconds between two looks with `--watch`: where they cost nothing, and at object stores.
LOOK_S, LOOK_REMOTE_S = 2.0, 15.0


def main() -> int:
    """Parse, look, show."""
    parser = Parser(description=__doc__)
    what = parser.add_argument_group("what to show")
    what.add_argument("--output", required=True, metavar="FOLDER_OR_URL", help="output of generate.py (required)")
    what.add_argument("--watch", action="store_true", help="look again and again until the run has ended")
    what.add_argument("--json", action="store_true", help="print JSON for machines; with --watch a line for each look")
    given = parser.parse(None)
    output = storage.absolute(given.output)
    states = looks(output) if given.watch else iter([Watcher(output).look()])
    console = Console()
    if given.json:
        state = _print_json(states, None if given.watch else 2)
    elif console.is_terminal and given.watch:
        state = _watch(states, console)
    else:
        state = _print(states, console)
    return EXIT_OK if state.state in ("running", "done") else EXIT_INCOMPLETE


def looks(output: str) -> Iterator[OutputState]:
    """How the run is, now and then, until it runs no more."""
    watcher = Watcher(output)
    while True:
        state = watcher.look()
        yield state
        if state.state != "running":
            return
        time.sleep(LOOK_REMOTE_S if storage.is_remote(output) else LOOK_S)


def screen(state: OutputState) -> Screen:
    """The display of a run, with what a look from outside adds."""
    return Screen(state.facts, title=state.words, remarks=tuple(_remarks(state)))


def _remarks(state: OutputState) -> Iterator[str]:
    """Where it runs; of several jobs how each of them is."""
    yield ""
    for share in state.shares:
        status = share.status
        where = f"process {status.pid} on {status.host}, since {status.started:%Y-%m-%d %H:%M:%S} UTC"
        if len(state.shares) == 1 and not state.missing:
            yield where
        else:
            yield f"share {status.share[0] + 1}/{status.share[1]} {share.words} ({brief(status.facts)}; {where})"
    yield state.output


def _print_json(states: Iterator[OutputState], indent: int | None) -> OutputState:
    for state in states:
        print(state.model_dump_json(indent=indent), flush=True)
    return state


def _watch(states: Iterator[OutputState], console: Console) -> OutputState:
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for state in states:
            live.update(screen(state), refresh=True)
    return state


def _print(states: Iterator[OutputState], console: Console) -> OutputState:
    """Once as the display on a terminal, else as plain lines."""
    for state in states:
        if console.is_terminal:
            console.print(screen(state), end="")
            continue
        lines = [state.words, brief(state.facts), *details(state.facts), *filter(None, _remarks(state))]
        print("\n".join(lines), flush=True)
    return state


if __name__ == "__main__":
    run_script(main)
