"""Signals: before anything is in flight they end the run at once, later they wait for it, but not for ever."""

# The signal has to come inside the block that expects what it does.
# ruff: noqa: PT012

from __future__ import annotations

import os
import signal
import time

import pytest

from jobs.run import signals
from jobs.run.signals import RunInterrupted, Stop, StopNowError


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_with_nothing_in_flight_a_signal_ends_the_run_at_once(number: int, code: int) -> None:
    with pytest.raises(RunInterrupted) as caught, Stop(60, print):
        send(number)
    assert caught.value.exit_code == code


def test_batches_in_flight_are_waited_for_one_per_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "NEWS_S", 0.05)
    told: list[str] = []
    with pytest.raises(RunInterrupted), Stop(60, told.append) as stop:
        stop.wait_for(2)
        assert not stop.came()
        stop.check()
        stop.wait_for(2)
        send()
        assert not any(stop.came() for _ in range(3)), "they were finished before"
        time.sleep(0.1)
        assert not stop.came()
        assert stop.came()
        stop.check()
    assert told == ["SIGTERM: finishing what is in flight, for 60 s at most; once more to stop at once"]


def test_time_is_up_after_the_grace() -> None:
    began = time.monotonic()
    with pytest.raises(RunInterrupted) as caught, Stop(0.2, print) as stop:
        stop.wait_for(5)
        send(signal.SIGINT)
        stop.look()
        time.sleep(0.5)
        with pytest.raises(StopNowError):
            stop.look()
        stop.check()
    assert time.monotonic() - began < 10
    assert caught.value.exit_code == 130


def test_a_second_signal_and_no_grace_end_at_once() -> None:
    with pytest.raises(RunInterrupted), Stop(60, print) as stop:
        stop.wait_for(5)
        send()
        stop.look()
        send()
        with pytest.raises(StopNowError):
            stop.look()
        stop.check()
    with pytest.raises(StopNowError), Stop(0, print) as stop:
        stop.wait_for(5)
        send()
        stop.look()


def test_a_signal_that_ray_took_while_it_started_ends_the_run_alike() -> None:
    with pytest.raises(RunInterrupted) as caught, Stop(60, print):
        raise SystemExit(15)
    assert caught.value.exit_code == 143


def test_signals_taken_away_are_taken_back_and_given_back_at_the_end() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RunInterrupted), Stop(60, print) as stop:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stop.listen()
        send()
    assert signal.getsignal(signal.SIGTERM) == before
