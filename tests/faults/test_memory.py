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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
        return self.eater.exists() and psutil.pid_exists(int(self.eater.read_text() or 0))


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
def metered(container: Container) -> Iterator[None]:
    """All memory is taken as long as the one lives that takes it."""
    ended = threading.Event()

    def meter() -> None:
        while not ended.wait(0.05):
            container.take(0.99 if container.eats() else 0.1)

    thread = threading.Thread(target=meter)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_worker_that_ray_ends_for_memory_is_told_and_counted_and_its_batch_made_again(
    clean_environment: dict[str, str], container: Container, tmp_path: Path
) -> None:
    prompts = ["a cat", "a dog", "leaves no room", "a fox", "a hen", "an owl"]
    rows = [
        {**SMALL, "id": f"r{i}", "task": "text2img", "prompt": prompt, "seed": i} for i, prompt in enumerate(prompts)
    ]
    path = os.pathsep.join(filter(None, [str(ROOT), str(KILLERS), clean_environment.get("PYTHONPATH")]))
    environment = {
        **clean_environment,
        "PYTHONPATH": path,
        "KILLERS_EATER": str(container.eater),
        "RAY_memory_monitor_refresh_ms": "100",
    }
    output = tmp_path / "out"
    job = Job(write_manifest(tmp_path / "m.parquet", rows), tmp_path, environment)
    with metered(container):
        ended = subprocess.run(
            [*CONTAINED, str(container.folder), *job.command(output)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=RUN_LIMIT_S,
        )
    assert ended.returncode == 0, ended.stderr
    assert container.eater.exists()
    assert {row["status"] for row in index_rows(output).values()} == {"success"}
    told = [line for line in ended.stderr.splitlines() if " was lost on the CPU of " in line]
    assert len(told) == 1, ended.stderr
    assert "a worker of decoder was lost" in told[0]
    assert "(out of memory: Ray ended it to keep its node alive); its batch (shard 0, batch 1) is made again" in told[0]
    report = json.loads((output / "_run" / "run.json").read_text())
    assert (report["lost_workers"], report["batches_again"]) == ({"out of memory": 1}, 1)
