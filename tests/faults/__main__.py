"""Faults in numbers, for a night: more seeds and more losses of power than the tests have time for.

    python -m tests.faults seeds [--count 10000] [--first 0]
    python -m tests.faults power [--most 400] [--resumed 100000]
    KILLS=1000 python -m pytest -o timeout=0 -o faulthandler_timeout=0 tests/faults/test_kills.py
                                                               the same with the real job, some ten seconds a kill

Prints a table of what was done; ends with the first story that goes wrong, naming its seed.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults.simulation.power import STORIES
from tests.faults.simulation.seeds import tell, undisturbed


def seeds(first: int, count: int, folder: Path) -> None:
    """Tell stories one after the other."""
    whole, began = undisturbed(folder / "whole"), time.monotonic()
    faults: Counter[str] = Counter()
    for seed in range(first, first + count):
        faults += tell(seed, folder / "story", whole)
    print(
        f"{count:,} seeds from {first}, {time.monotonic() - began:,.0f} s, nothing lost\n\n| fault | times |\n|---|---|"
    )
    for kind, times in faults.most_common():
        print(f"| {kind} | {times:,} |")
    print(f"| all | {faults.total():,} |")


def power(most: int, resumed: int, folder: Path) -> None:
    """Look at every state after a loss of power, and start the job again on it."""
    print("| story | operations | states | started again on | wrong |\n|---|---|---|---|---|")
    for number, make in enumerate(STORIES):
        place = folder / str(number)
        place.mkdir()
        story = make(place)
        crashes = list(story.crashes(1, most))
        chosen = random.Random(1).sample(crashes, min(resumed, len(crashes)))
        wrong = sum(bool(story.lost_promises(at, state) or story.half_done(state)) for at, state in crashes)
        wrong += sum(bool(story.resumed(state, place / "again")) for _, state in chosen)
        print(f"| {story.name} | {len(story.disk.operations)} | {len(crashes):,} | {len(chosen):,} | {wrong} |")
        if wrong:
            raise SystemExit(1)


def main() -> None:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    told = commands.add_parser("seeds", help="a job under faults that a seed decides")
    told.add_argument("--count", type=int, default=10_000)
    told.add_argument("--first", type=int, default=0)
    lost = commands.add_parser("power", help="states after a loss of power")
    lost.add_argument("--most", type=int, default=400, help="states at each moment")
    lost.add_argument("--resumed", type=int, default=100_000, help="of each story, states to start the job on")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.command == "seeds":
            seeds(given.first, given.count, Path(folder))
        else:
            power(given.most, given.resumed, Path(folder))


if __name__ == "__main__":
    main()
