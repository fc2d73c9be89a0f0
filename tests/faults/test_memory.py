"""A worker that Ray really ends because its node runs out of memory is told by name and cause, and costs no row.

The job runs where `/sys/fs/cgroup` is a folder of this test's, in a mount namespace of its own: Ray reads there how
much memory its container has and how much is taken. So the node is full when the test says so, whatever else this
machine does, and no other process can be meant. All else is real: Ray's monitor, its choice, its kill, its restart.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.ray.conftest import ROOT, SMALL, Job, write_manifest
from tests.ray.test_pipeline import index_rows

pytestmark = [pytest.mark.faults, pytest.mark.models]

KILLERS = Path(__file__).resolve().parent / "killers"

#: A run that takes longer hangs.
RUN_LIMIT_S = 480

#: Bytes of the container that the job believes to be in: less than any machine that the tests run on has.
MEMORY = 3 << 30

#: Runs a command where the folder lies over `/sys/fs/cgroup`.
CONTAINED = ["unshare", "--map-root-user", "--mount", "sh", "-c", 'mount --bind "$0" /sys/fs/cgroup && exec "$@"']


@dataclass(frozen=True)
class Container:
    """What Ray shall read of its container's memory.

    Attributes:
        folder: stands for `/sys/fs/cgroup`.
        eater: holds the id of the process that takes all of the memory, once there is one.
    """

    folder: Path
    eater: Path

    def take(self, share: float) -> None:
        """So much of the memory is taken."""
        used = int(MEMORY * share)
        zeros = ("active_file", "inactive_file", "shmem", "swapcached")
        stat = [f"anon {used}", *(f"{name} 0" for name in zeros)]
        for name, text in (("memory.current", str(used)), ("memory.stat", "\n".join(stat))):
            # At once, because it is read at any moment.
            new = self.folder.parent / name
            new.write_text(text + "\n")
            os.replace(new, self.folder / name)

    def eats(self) -> bool:
        """The process that takes the memory lives."""
        return self.eater.exists() and (text := self.eater.read_text()) != "" and _lives(int(text))


def _lives(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _beside(worker: int, names: Sequence[str]) -> list[int]:
    """Workers of these names on a worker's node, as far as they can be seen now."""
    found = []
    # All of Ray's workers on a node have one parent; the name of one that is in a call has more behind it.
    parent = psutil.Process(worker).parent()
    for each in parent.children() if parent is not None else ():
        with suppress(psutil.Error):
            if "".join(each.cmdline()[:1]).startswith(tuple(names)):
                found.append(each.pid)
    return found


@pytest.fixture
def container(tmp_path: Path) -> Container:
    made = Container(tmp_path / "cgroup", tmp_path / "eater")
    made.folder.mkdir()
    (made.folder / "memory.max").write_text(f"{MEMORY}\n")
    made.take(0.1)
    if (
        shutil.which("unshare") is None
        or subprocess.run([*CONTAINED, made.folder, "true"], capture_output=True).returncode
    ):
        pytest.skip("this machine lets nobody make a mount namespace")
    return made


@contextmanager
def metered(container: Container, share: float, too: Sequence[str]) -> Iterator[None]:
    """So much of the memory is taken as long as the one lives that takes it, and these other processes of its job."""
    ended = threading.Event()

    def meter() -> None:
        meant: list[int] = []
        while not ended.wait(0.05):
            if len(meant) < len(too) and container.eats():
                # Nothing is taken before all of them are known; the one that eats waits for that.
                meant = _beside(int(container.eater.read_text()), too)
                continue
            container.take(share if container.eats() or any(map(_lives, meant)) else 0.1)

    thread = threading.Thread(target=meter)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def run(
    prompts: Sequence[str],
    container: Container,
    environment: dict[str, str],
    folder: Path,
    share: float = 0.99,
    too: Sequence[str] = (),
) -> tuple[str, dict[str, Any]]:
    """What the job says and what it writes into `_run/run.json`; all of its rows have an image."""
    rows = [
        {**SMALL, "id": f"r{i}", "task": "text2img", "prompt": prompt, "seed": i} for i, prompt in enumerate(prompts)
    ]
    path = os.pathsep.join(filter(None, [str(ROOT), str(KILLERS), environment.get("PYTHONPATH")]))
    environment = {
        **environment,
        "PYTHONPATH": path,
        "KILLERS_EATER": str(container.eater),
        "RAY_memory_monitor_refresh_ms": "100",
    }
    output = folder / "out"
    job = Job(write_manifest(folder / "m.parquet", rows), folder, environment)
    with metered(container, share, too):
        ended = subprocess.run(
            [*CONTAINED, str(container.folder), *job.command(output)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=RUN_LIMIT_S,
        )
    assert ended.returncode == 0, ended.stderr
    assert container.eater.exists()
    assert {row["status"] for row in index_rows(output).values()} == {"success"}
    return ended.stderr, json.loads((output / "_run" / "run.json").read_text())


@pytest.mark.parametrize(
    ("share", "too"),
    [
        pytest.param(0.99, (), id="one", marks=pytest.mark.nightly),
        # More than all workers have: Ray ends every one of them, and none of them is left to say so.
        pytest.param(2.0, ("ray::KeptAttempts",), id="all, the one with the books as well"),
    ],
)
def test_workers_that_ray_ends_for_memory_are_told_and_counted_and_their_batches_made_again(
    share: float, too: Sequence[str], clean_environment: dict[str, str], container: Container, tmp_path: Path
) -> None:
    prompts = ["a cat", "a dog", "leaves no room", "a fox", "a hen", "an owl"]
    said, report = run(prompts, container, clean_environment, tmp_path, share, too)
    told = [line for line in said.splitlines() if " was lost on the CPU of " in line]
    # How many Ray takes until it sees room again is a matter of moments, and of the machine; each is told.
    assert all("(out of memory: Ray ended it to keep its node alive)" in line for line in told), said
    of_decoder = [line for line in told if "a worker of decoder was lost" in line]
    assert any("its batch (shard 0, batch 1) is made again" in line for line in of_decoder), said
    assert any("a worker of attempts was lost" in line for line in told) or not too, said
    assert report["lost_workers"] == {"out of memory": len(told)}
    again = sum(line.endswith("is made again") for line in told)
    # Where Ray has ended an actor twice, the run goes on with less, and what others were at is made again, too.
    assert report["batches_again"] == again or (report["memory_relief"] and report["batches_again"] > again), said


def test_a_batch_that_memory_does_not_hold_is_made_with_less_in_it_at_a_time(
    clean_environment: dict[str, str], container: Container, tmp_path: Path
) -> None:
    said, report = run(["a cat", "a dog", "wants a call of its own", "a fox"], container, clean_environment, tmp_path)
    turns, halves, for_all = report["memory_relief"]
    assert turns.startswith("out of memory: the process of shard 0, batch 1 of decoder was ended 2 times"), said
    assert turns.endswith("; going on with 1 prior, then 1 decoder actors"), said
    assert "; it is made in calls of 1 sample, whose pixels may differ" in halves, said
    assert "all calls of decoder have 1 sample from here on" in for_all
    assert [said.count(line) for line in report["memory_relief"]] == [1, 1, 1], said
    assert report["pools"]["in_turn"]
    assert report["lost_workers"]["out of memory"] >= 4
