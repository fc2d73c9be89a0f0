"""What a person is told of an engine's failure, and when its folder is full; and a start of Ray in the background."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable

import pytest
import ray

from jobs.engine import cluster as cluster_module
from jobs.engine.cluster import FULL_BYTES, FULL_S, Room, cluster, connecting, engine_log, reason
from manifests import storage
from manifests.errors import StorageError, UsageError

ACTOR_DIED = """The actor died because of an error raised in its creation task, \x1b[36mray::MapWorker()\x1b[39m
  File "workers/stages/prior.py", line 41, in __init__
    self._model = kandinsky.PriorModel(folder)
           ^^^^^^^^
workers.errors.CheckpointError: unet: no weights
"""

USER_CODE = """ray::MapBatches(inputs)() (pid=1, ip=1.2.3.4)
  File "workers/stages/inputs.py", line 1, in inputs
ValueError: a block must be one batch, got 2 rows

The above exception was the direct cause of the following exception:

ray.data.exceptions.UserCodeException: UDF failed to process a data block.
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (ACTOR_DIED, "workers.errors.CheckpointError: unet: no weights"),
        (USER_CODE, "ValueError: a block must be one batch, got 2 rows"),
        (
            "The actor died unexpectedly before finishing this task.\nclass_name: X",
            "The actor died unexpectedly before",
        ),
        ("", "no reason given"),
    ],
)
def test_the_reason_is_the_error_under_the_wrappers(text: str, line: str) -> None:
    assert reason(text).startswith(line)


def test_the_engines_words_are_kept_and_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with engine_log() as said:
        print("\x1b[33m(raylet)\x1b[0m Task failed")
        logging.getLogger("ray.data").error("a block was given up")
        logging.getLogger("ray.data").info("starting")
    print("afterwards")
    assert said.text == "(raylet) Task failed\na block was given up\n"
    assert capfd.readouterr() == ("afterwards\n", "")


def test_a_full_folder_of_rays_ends_the_run_when_it_stays_full(monkeypatch: pytest.MonkeyPatch) -> None:
    free, now = [FULL_BYTES], [0.0]
    monkeypatch.setattr(storage, "free_bytes", lambda folder: free[0])
    room = Room("/ray", lambda: now[0])
    for free[0], now[0] in ((FULL_BYTES, 0), (0, 1), (0, FULL_S), (FULL_BYTES, FULL_S + 1), (0, FULL_S + 2)):
        room.check()
    now[0] = 2 * FULL_S + 2
    with pytest.raises(StorageError, match=r"No space left on device: /ray, where Ray keeps .*RAY_TMPDIR"):
        room.check()


def test_where_there_is_no_ray_its_folder_is_not_looked_at() -> None:
    Room(None).check()


class Connections:
    """Ray as `cluster` sees it: what connects when it is let, and tells on which thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.let = threading.Event()
        self.starts_own = True
        self.refusal: Exception | None = None
        self.made: list[threading.Thread] = []
        self.ended = 0
        self._open = False
        monkeypatch.setattr(cluster_module, "connect", self._connect)
        monkeypatch.setattr(cluster_module, "check_source", lambda: None)
        monkeypatch.setattr(cluster_module, "starts_own", lambda: self.starts_own)
        monkeypatch.setattr(ray, "is_initialized", lambda: self._open)
        monkeypatch.setattr(ray, "shutdown", self._shutdown)
        monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])

    def _connect(self, tell: Callable[[str], None]) -> None:
        assert self.let.wait(60)
        self.made.append(threading.current_thread())
        if self.refusal is not None:
            raise self.refusal
        self._open = True

    def _shutdown(self) -> None:
        self.ended += 1
        self._open = False


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    return Connections(monkeypatch)


def test_what_connects_in_the_background_is_waited_for_by_the_first_cluster_which_ends_it(
    connections: Connections,
) -> None:
    with connecting():
        assert not connections.made
        connections.let.set()
        with cluster() as nodes:
            assert nodes == [{"CPU": 2.0}]
        assert connections.ended == 1
        # A second one has to connect by itself.
        with cluster():
            pass
    background, own = connections.made
    assert (background is threading.current_thread(), own is threading.current_thread()) == (False, True)
    assert connections.ended == 2


def test_a_connection_that_nobody_has_asked_for_is_ended_also_where_something_else_has_failed(
    connections: Connections,
) -> None:
    connections.let.set()
    with pytest.raises(UsageError, match="another job works there"), connecting():
        raise UsageError("another job works there")
    assert (len(connections.made), connections.ended) == (1, 1)


def test_why_there_is_no_connection_is_told_to_who_asks_for_a_cluster_and_to_nobody_else(
    connections: Connections,
) -> None:
    connections.let.set()
    connections.refusal = UsageError("no such address")
    with pytest.raises(UsageError, match="no such address"), connecting(), cluster():
        pytest.fail("a cluster without a connection")
    with connecting():
        pass


def test_who_is_connected_stays_so(connections: Connections) -> None:
    connections.let.set()
    with cluster():
        with connecting(), cluster():
            pass
        assert (len(connections.made), connections.ended) == (1, 0)


def test_a_cluster_that_is_there_is_joined_by_who_needs_it(connections: Connections) -> None:
    connections.let.set()
    connections.starts_own = False
    with connecting():
        pass
    assert not connections.made
    with connecting(), cluster():
        pass
    assert connections.made == [threading.current_thread()]


def test_a_signal_while_it_connects_leaves_no_connection_behind(connections: Connections) -> None:
    class Asked(KeyboardInterrupt):
        """What a run's signal handler raises."""

    def ask(number: int, frame: object) -> None:
        # Ray's start goes on for a while.
        threading.Timer(0.3, connections.let.set).start()
        raise Asked

    former = signal.signal(signal.SIGUSR1, ask)
    sender = threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGUSR1])
    sender.start()
    try:
        with pytest.raises(Asked), connecting(), cluster():
            pytest.fail("a cluster before there is a connection")
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, former)
    assert (len(connections.made), connections.ended, ray.is_initialized()) == (1, 1, False)
