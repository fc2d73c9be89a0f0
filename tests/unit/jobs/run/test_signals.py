"""Signals: before anything is in flight they end the run at once, later they wait for it, but not for ever."""

# The signal has to come inside the block that expects what it does.
# ruff: noqa: PT012

from __future__ import annotations

import contextlib
import os
import queue
import signal
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from jobs.run import signals
from jobs.run.signals import RunInterrupted, Stop, StopNowError
from tests.unit.jobs.monitoring.clocks import Clock


def send(number: int = signal.SIGTERM) -> None:
    signal.raise_signal(number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_with_nothing_in_flight_a_signal_ends_the_run_at_once(number: int, code: int) -> None:
    with pytest.raises(RunInterrupted) as caught, Stop(60, print):
        send(number)
    assert caught.value.exit_code == code


def test_batches_in_flight_are_waited_for_one_per_device(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(signals, "time", SimpleNamespace(monotonic=clock))
    told: queue.Queue[str] = queue.Queue()
    with pytest.raises(RunInterrupted), Stop(60, told.put) as stop:
        stop.wait_for(2)
        assert not stop.came()
        stop.check()
        stop.wait_for(2)
        send()
        assert not any(stop.came() for _ in range(3)), "they were finished before"
        clock.now += signals.NEWS_S + 0.1
        assert not stop.came()
        assert stop.came()
        stop.check()
    words = "SIGTERM: finishing what is in flight, for 60 s at most; once more to stop at once"
    assert told.get(timeout=300) == words
    assert told.empty()


def test_time_is_up_after_the_grace() -> None:
    with pytest.raises(RunInterrupted) as caught, Stop(1000, print) as stop:
        stop.wait_for(5)
        send(signal.SIGINT)
        stop.look()
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        assert 500 < left <= 1000
        # The same clock, put forward.
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(StopNowError):
            while True:
                stop.look()
                time.sleep(0.01)
        stop.check()
    assert caught.value.exit_code == 130


def test_a_run_whose_batches_only_wait_for_their_inputs_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(signals, "time", SimpleNamespace(monotonic=clock))
    with pytest.raises(RunInterrupted), Stop(60, print) as stop:
        stop.wait_for(5)
        stop.look(0)
        clock.now += 2 * signals.IDLE_S
        stop.look(0)  # nobody has asked
        send()
        stop.look(0)
        clock.now += 0.9 * signals.IDLE_S
        stop.look(0)
        stop.look(1)  # one came to a device meanwhile
        clock.now += 2 * signals.IDLE_S
        stop.look(0)
        clock.now += signals.IDLE_S
        with pytest.raises(StopNowError):
            stop.look(0)
        stop.check()


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


def test_a_signal_that_somebody_turns_into_an_error_of_their_own_still_ends_the_run_as_a_signal() -> None:
    with pytest.raises(RunInterrupted) as ended, Stop(60.0, lambda text: None):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except KeyboardInterrupt as interrupt:
            raise ValueError("Ray could not start") from interrupt
    assert ended.value.exit_code == 143


@pytest.mark.parametrize("then", [lambda stop: stop.listen(), lambda stop: stop.wait_for(1)])
def test_a_signal_that_somebody_swallows_is_raised_again_before_anything_is_made(then: Callable[[Stop], None]) -> None:
    with pytest.raises(RunInterrupted), Stop(60.0, lambda text: None) as stop:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        then(stop)


def test_the_timer_of_whoever_the_run_is_a_part_of_is_left_alone() -> None:
    rung: list[int] = []
    former = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    before = signal.setitimer(signal.ITIMER_REAL, 5000)
    try:
        with Stop(60.0, lambda text: None) as stop:
            stop.wait_for(1)
            send(signal.SIGALRM)
            stop.look()
        assert rung == [signal.SIGALRM]
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
        signal.signal(signal.SIGALRM, former)
