"""What a person sees during a run: one display on a terminal, plain lines without one."""

from __future__ import annotations

import io
import os
import pty
import threading
import time

import pytest

from jobs.monitoring.facts import EngineState, PoolState
from jobs.monitoring.progress import RunProgress

LOADING = EngineState([PoolState(name="decoder", size=2, up=0, loading=2, compiling=0, waiting=1, call_seconds=0.0)])


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the test takes, no line comes by itself."""
    monkeypatch.setattr("jobs.monitoring.progress.LOG_EVERY_S", 3600.0)


@pytest.mark.usefixtures("still")
def test_without_a_terminal_phases_and_counts_are_plain_lines() -> None:
    stream = io.StringIO()
    with RunProgress(stream, clock=lambda: 100.0) as progress:
        progress.phase("planning")
        progress.start(total=8, done=4)
        progress.phase("making images")
        progress.add(3, 1)
    assert stream.getvalue().splitlines() == [
        "[0s] planning",
        "[0s] going on from 4 of 8 images",
        "[0s] making images",
        "[0s] making images 8/8 images, 1 failed",
    ]


def test_what_the_pools_do_is_said_beside_the_phase_until_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.monitoring.progress.LOG_EVERY_S", 0.01)
    details = "  decoder: 0 of 2 up, 2 loading, 1 batch waiting\n"
    stream = io.StringIO()
    with RunProgress(stream) as progress:
        progress.phase("starting the pools")
        progress.start(total=8, done=0)
        progress.engine(LOADING)
        # Every sixth line comes with everything else that is known; the first ones may have come before that was said.
        while stream.getvalue().count(details) < 2:
            time.sleep(0.01)
        between = stream.getvalue().split(details)[1]
        assert between.count("starting the pools (2 loading) 0/8 images\n") == 6
        progress.phase("making images")
        progress.add(8, 0)
    assert stream.getvalue().endswith("s] making images 8/8 images\n")


@pytest.mark.usefixtures("still")
def test_a_run_that_ends_while_planning_says_no_count() -> None:
    stream = io.StringIO()
    with RunProgress(stream, clock=lambda: 100.0) as progress:
        progress.phase("planning")
    assert stream.getvalue() == "[0s] planning\n"


class Terminal:
    """A real pseudo-terminal, and all that was written to it."""

    def __init__(self) -> None:
        self._leader, follower = pty.openpty()
        self.stream = os.fdopen(follower, "w", encoding="utf-8")
        self._written = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while data := os.read(self._leader, 65536):
                self._written += data
        except OSError:  # how Linux says that the other end is closed
            return

    def written(self) -> str:
        """Closes it."""
        self.stream.close()
        self._reader.join()
        os.close(self._leader)
        return self._written.decode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name, value in (("TERM", "xterm-256color"), ("COLUMNS", "80"), ("LINES", "24")):
        monkeypatch.setenv(name, value)
    return Terminal()


def test_on_a_terminal_one_display_stays_with_the_last_facts_and_notes_above_it(terminal: Terminal) -> None:
    with RunProgress(terminal.stream) as progress:
        progress.phase("making images")
        progress.start_tasks({"text2img": (8, 4)})
        progress.note("device: cpu")
        progress.engine(LOADING)
        progress.add(3, 1)
    text = terminal.written()
    last = text[text.rindex("╭─") :]
    assert " done " in last.splitlines()[0]
    assert "0 of 2 up, 2 loading" in last
    assert "100%" in last
    assert "device: cpu" in text
    assert "device: cpu" not in last


def test_on_a_terminal_a_run_that_counted_nothing_leaves_nothing_behind(terminal: Terminal) -> None:
    with RunProgress(terminal.stream) as progress:
        progress.phase("planning")
    # The lines of the display are erased in the end.
    assert terminal.written().rindex("\x1b[2K") > 0
