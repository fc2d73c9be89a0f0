"""Reading what rows name: side by side, and never for ever."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from manifests import storage
from tests.unit.jobs.monitoring.clocks import Clock
from workers.stages import fetching
from workers.stages.fetching import FETCH_THREADS, MANY_LOST, UnusableError, fetch


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that takes connections and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def until(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Clock]:
    """Given how many files will come: a clock that stands still until they have, and then goes as fast as one waits.

    So a file that comes is never late, however busy this machine is, and one that does not takes no time.
    """
    clock, coming = Clock(), 0

    class Queue(SimpleQueue[Any]):
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            nonlocal coming
            if timeout is None:
                return super().get()
            if not coming:
                clock.now += timeout
                raise Empty
            found = super().get(timeout=300)
            coming -= 1
            return found

    def start(files: int) -> Clock:
        nonlocal coming
        coming = files
        return clock

    monkeypatch.setattr(fetching, "SimpleQueue", Queue)
    monkeypatch.setattr(fetching, "time", SimpleNamespace(monotonic=clock))
    return start


def test_a_server_that_says_nothing_fails_its_row_alone(
    silent_server: str, tmp_path: Path, until: Callable[[int], Clock]
) -> None:
    (tmp_path / "a.png").write_bytes(b"whole")
    clock = until(1)
    found = fetch([f"{silent_server}/cat.png", str(tmp_path / "a.png")], 1.0)
    assert clock.now == 101.0
    assert found[str(tmp_path / "a.png")] == b"whole"
    assert "did not come within 1 s" in str(found[f"{silent_server}/cat.png"])
    assert "--input-timeout" in str(found[f"{silent_server}/cat.png"])


def test_a_read_that_hangs_keeps_no_process_from_ending(silent_server: str) -> None:
    script = f"from workers.stages.fetching import fetch; print(fetch(['{silent_server}/a.png'], 0.5))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0
    assert "did not come within 0.5 s" in done.stdout


def test_pipes_sockets_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket.png"))
    paths = [str(tmp_path / "pipe.png"), str(tmp_path / "socket.png"), "/dev/zero"]
    found = fetch(paths, 60.0)
    assert [str(found[path]).split(" and")[0] for path in paths] == ["is a pipe", "is a socket", "is a device"]
    listener.close()


def test_a_host_that_refuses_is_asked_again_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "FOREIGN_PATIENCE_S", 0.5)
    # Nobody listens on a port that is only kept. Who asked for the whole limit would hear that it did not come.
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        (reason,) = fetch([f"http://127.0.0.1:{server.getsockname()[1]}/a.png"], 60.0).values()
    assert "cannot be read (ClientConnectorError" in str(reason)


def test_after_many_lost_files_a_place_gets_less_time_until_one_comes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, until: Callable[[int], Clock]
) -> None:
    answers = threading.Event()

    def read(url: str) -> bytes:
        if "hung" in url and not answers.is_set():
            time.sleep(3600)
        return b"image"

    monkeypatch.setattr(storage, "read_bytes", read)
    hung = [str(tmp_path / "hung" / f"{number}.png") for number in range(FETCH_THREADS + 24)]
    clock = until(1)
    found = fetch([*hung, str(tmp_path / "good" / "a.png")], 1.0)
    # One whole limit for the first turn, a tenth for each of the three that follow.
    assert clock.now == pytest.approx(101.3)
    assert sum(isinstance(content, UnusableError) for content in found.values()) == len(hung) > MANY_LOST
    assert found[str(tmp_path / "good" / "a.png")] == b"image"
    answers.set()
    until(1)
    assert fetch(hung[:1], 1.0) == {hung[0]: b"image"}
    assert fetching._lost[str(tmp_path / "hung")] == 0


def test_threads_are_kept_for_the_next_files(tmp_path: Path) -> None:
    paths = []
    for number in range(3 * FETCH_THREADS):
        (tmp_path / f"{number}").write_bytes(b"x")
        paths.append(str(tmp_path / f"{number}"))
    fetch(paths, 10.0)
    before = threading.active_count()
    for _ in range(20):
        fetch(paths, 10.0)
    assert threading.active_count() <= before + FETCH_THREADS


def test_a_file_is_found_in_the_spelling_that_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "photos").mkdir()
    for name in ("my photo [1] 100%.png", "a%20b.png", "photos/cat.png", r"photos\dog.png"):
        (tmp_path / name).write_bytes(name.encode())
    spelled = {
        (tmp_path / "my photo [1] 100%.png").as_uri(): "my photo [1] 100%.png",
        f"file://{tmp_path}/my photo [1] 100%.png": "my photo [1] 100%.png",
        # As it stands first: this is a name that has a %.
        f"file://{tmp_path}/a%20b.png": "a%20b.png",
        "~/photos/cat.png": "photos/cat.png",
        rf"{tmp_path}/photos\cat.png": "photos/cat.png",
        rf"{tmp_path}/photos\dog.png": r"photos\dog.png",
        rf"{tmp_path}/photos\..\photos\cat.png": "photos/cat.png",
    }
    assert fetch(list(spelled), 10.0) == {location: name.encode() for location, name in spelled.items()}


def test_a_path_of_a_windows_machine_is_told_as_one(tmp_path: Path) -> None:
    (reason,) = fetch([rf"{tmp_path}/C:\Users\me\cat.png"], 10.0).values()
    assert "is a path of a Windows machine" in str(reason)
