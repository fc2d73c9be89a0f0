"""One seed, one story: a job that is killed, refused, overtaken and lied to, under virtual time, until it is done.

The driver, its ledger, the lease, parts and seals are the real ones, on a real folder; time, the order of events and
the faults come from the seed. Whatever happened, a last start on a quiet machine must make the files of an undisturbed
run, and at every end on the way a shard that counts as sealed must be whole.
"""

from __future__ import annotations

import errno
import hashlib
import random
import shutil
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from jobs.leases import fence, lease
from manifests.commit import read_stats, sealed_shards
from manifests.config import RunConfig
from manifests.errors import IncompleteRunError, StorageError
from manifests.storage import writes
from tests.faults.simulation.engine import Engine, generate
from tests.faults.simulation.power import config_for, shard_files
from tests.unit.finished_run import write_manifest

ROWS: tuple[dict[str, Any], ...] = tuple(
    {"id": f"r{i}", "task": "text2img", "prompt": f"prompt {i}", "seed": i, "num_images": 1} for i in range(6)
)

#: Starts that meet faults, in one story.
STARTS = 2

#: A start changes some sixteen files.
CHANGES = 18

#: What may happen when a file is about to be changed.
KINDS = ("killed", "killed behind it", "disk full", "overtaken", "clock put on", "clock put back")


class Killed(BaseException):
    """As kill -9: nobody handles it, and nothing is written after it."""


@dataclass
class Process:
    """One start of the job.

    Attributes:
        at: number of the change at which something happens, and what.
    """

    at: dict[int, str]
    changes: int = 0
    dead: bool = False


@dataclass
class World:
    """A folder, a clock, and the processes that work on it; those behind the last one are asleep."""

    config: RunConfig
    order: random.Random
    faults: Counter[str] = field(default_factory=Counter)
    processes: list[Process] = field(default_factory=list)
    now: float = 1e9
    wall: float = 1e9
    wrong: str = ""

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds

    def start(self, depth: int = 0) -> None:
        """Start the job; something happens to it."""
        kinds = [kind for kind in KINDS if kind != "overtaken" or not depth]
        many = self.order.randint(1, 2)
        self.processes.append(
            Process({self.order.randrange(1, CHANGES): self.order.choice(kinds) for _ in range(many)})
        )
        fails = [row["id"] for row in ROWS if self.order.random() < 0.2]
        config = self.config.model_copy(update={"retry_errors": self.order.random() < 0.5})
        with suppress(Killed, StorageError, IncompleteRunError):
            generate(config, Engine(self.order, fails, self._step, plain=True))
        self.processes.pop()
        self.check()

    def _step(self, what: str) -> int:
        """How often a batch comes."""
        if what != "batch" or self.order.random() > 0.15:
            return 1
        times = self.order.choice([0, 2])
        self.faults["batch given up" if times == 0 else "batch made twice"] += 1
        return times

    def ask(self, ask: Any) -> None:
        """Stands for the question before every change of a file."""
        if not self.processes:
            ask()
            return
        process = self.processes[-1]
        if process.dead:
            raise Killed
        process.changes += 1
        kind = process.at.pop(process.changes, None)
        if kind is not None:
            self.faults[kind] += 1
        if kind == "killed":
            process.dead = True
            raise Killed
        if kind == "disk full":
            raise OSError(errno.ENOSPC, "No space left on device")
        if kind == "overtaken":
            # This one is stopped, and another one works meanwhile, as far as it comes.
            self.start(depth=1)
            self.sleep(2 * lease.STALE_S + 2 * fence.FRESH_S)
        if kind in ("clock put on", "clock put back"):
            self.wall += 3600 if kind == "clock put on" else -3600
        ask()
        if kind == "killed behind it":
            process.at[process.changes + 1] = "killed"
            self.faults["killed"] -= 1
        if kind == "overtaken" and writes._fence.get() is not None:
            # Kept, because storage and tasks make errors of their own of what is raised here.
            self.wrong = "a job that was overtaken went on"

    def check(self) -> None:
        """Nobody went on who must not, and under a final name there is nothing or the whole of it."""
        assert not self.wrong, self.wrong
        output = self.config.output
        for shard in sealed_shards(output):
            stats = read_stats(output, shard)
            for file in stats.files:
                data = (Path(output) / file.name).read_bytes()
                assert hashlib.sha256(data).hexdigest() == file.sha256, f"{file.name} is not what its stats say"


def undisturbed(folder: Path) -> dict[str, bytes]:
    """Shard files of a run to which nothing happens."""
    folder.mkdir(parents=True)
    generate(config_for(folder, Path(write_manifest(folder / "m.parquet", ROWS))), Engine(plain=True))
    return shard_files(folder)


def tell(seed: int, folder: Path, whole: dict[str, bytes]) -> Counter[str]:
    """Tell one story; returns the faults that it had, by kind.

    Raises:
        AssertionError: something was lost, doubled or changed; it names the seed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = config_for(folder, Path(write_manifest(folder / "m.parquet", ROWS)))
    world = World(config, random.Random(seed))
    clock = SimpleNamespace(sleep=world.sleep, monotonic=lambda: world.now, time=lambda: world.wall)
    ask = writes._ask
    try:
        with ExitStack() as stack:
            stack.enter_context(patch.object(fence, "time", clock))
            stack.enter_context(patch.object(lease, "time", clock))
            stack.enter_context(patch.object(writes, "_ask", lambda: world.ask(ask)))
            stack.enter_context(patch("os.fsync", lambda number: None))
            for _ in range(STARTS):
                world.start()
            generate(config.model_copy(update={"retry_errors": True}), Engine(world.order, plain=True))
        assert shard_files(folder) == whole, "the shards are not those of an undisturbed run"
        assert (Path(config.output) / "_SUCCESS").exists()
    except (AssertionError, Exception) as error:
        raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}; faults {dict(world.faults)}") from error
    return +world.faults
