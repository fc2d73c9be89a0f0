"""The display on terminals of many sizes: all of it where there is room, the most important where there is not."""

from __future__ import annotations

import io
import re

import pytest

from jobs.monitoring.display import Screen
from jobs.monitoring.facts import RunFacts
from jobs.monitoring.tracker import Tracker
from tests.unit.jobs.monitoring.sample_facts import facts


def shown(known: RunFacts, width: int = 80, height: int = 24, encoding: str = "utf-8") -> list[str]:
    """Lines on a real console."""
    from rich.console import Console

    sink = io.BytesIO()
    stream = io.TextIOWrapper(sink, encoding, errors="strict")
    console = Console(file=stream, force_terminal=True, width=width, height=height, color_system="standard")
    console.print(Screen(known), end="")
    stream.flush()
    return re.sub("\x1b\\[[0-9;]*m", "", sink.getvalue().decode(encoding)).splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_everything_is_there_where_there_is_room(width: int) -> None:
    lines = shown(facts(), width)
    text = " ".join(" ".join(lines).split())
    for words in (
        "making images",
        "img2img",
        "6,100 12,600 1",
        "invalid rows",
        "6,223 12,853 6",
        "2.31 images/s now, 2.21 images/s overall",
        "3h 20m (3h 03m to 3h 53m)",
        "TFLOP/s prior 0.034, decoder 81 (a device in calls)",
        "6 of 14 sealed",
        "lost 3 workers (2 out of memory, 1 hung)",
        "all done",
        "7 of 8 up, 1 loading",
        "97%",
        "14 batches",
        "row 132 (cat-132) failed_to_load: no file 132",
        "row 7 (cat-7)",
        "12m 05s",
    ):
        assert words in text, text
    assert {len(line) for line in lines} == {width}
    assert len(lines) < 24


@pytest.mark.parametrize("height", [8, 12, 16, 20])
@pytest.mark.parametrize("width", [56, 80, 120])
def test_a_short_terminal_keeps_the_counts_and_is_never_too_full(width: int, height: int) -> None:
    lines = shown(facts(), width, height)
    assert len(lines) < height
    assert "12,853" in " ".join(lines).replace("12853", "12,853")


def test_failures_go_before_pools_and_pools_before_tasks() -> None:
    text = [" ".join(shown(facts(), 80, height)) for height in (24, 17, 12, 9)]
    assert ["newest failures" in each for each in text] == [True, False, False, False]
    assert ["decoder" in each for each in text] == [True, True, True, False]
    assert ["img2img" in each for each in text] == [True, True, False, False]


@pytest.mark.parametrize(("width", "height"), [(80, 3), (40, 24), (20, 2), (1, 1)])
def test_one_line_is_left_of_it_on_the_smallest_terminals(width: int, height: int) -> None:
    (line,) = shown(facts(), width, height)
    assert len(line) <= width
    assert ("6223/12853" in line) == (width >= 10)


def test_a_terminal_without_line_drawing_gets_letters_it_has() -> None:
    lines = shown(facts(), encoding="ascii")
    assert "6 of 14 sealed" in " ".join(lines)


def test_before_the_first_image_there_is_a_phase_and_no_number() -> None:
    tracker = Tracker(lambda: 5.0)
    tracker.phase("planning")
    lines = shown(tracker.facts())
    assert "planning" in lines[0]
    assert not re.search(r"images/s|\d+%", " ".join(lines))


def test_a_rate_that_is_not_known_yet_is_not_shown() -> None:
    text = " ".join(shown(facts(rate=None, overall_rate=None, left=None)))
    assert "known after a few batches" in text
    assert "images/s" not in text
    assert "left " not in text


def test_what_a_row_holds_is_text_and_no_markup() -> None:
    odd = facts().failures[0].model_copy(update={"id": "[bold]x[/nope]", "message": "[red]why[/"})
    assert "([bold]x[/nope]) failed_to_load: [red]why[/" in " ".join(shown(facts(failures=(odd,))))
