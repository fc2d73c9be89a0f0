"""The whole job in one process, without Ray: driver, ledger, lease, storage, parts and seals are the real ones.

In Ray's place stands `Engine`. It works off batches and seals in an order that its random numbers decide, one at a
time, so that one seed is one story; images come from seed and image number, as in `tests/faults/quick_generate.py`.
"""

from __future__ import annotations

import io
import random
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import ray

from jobs.engine.pipeline import Setup, Work
from jobs.engine.pools import Pools, PoolSize
from jobs.leases import lease
from jobs.monitoring.progress import RunProgress
from jobs.monitoring.status_file import StatusFile
from jobs.run import job
from jobs.run.prior_stage import PriorReport
from jobs.schedule import running
from manifests.batch import Batch
from manifests.commit import Receipt
from manifests.config import RunConfig
from manifests.embeddings import kept_clip
from manifests.errors import RowError
from manifests.planning.plan import window_batches
from workers.device.device import DeviceChoice
from workers.stages.encode import encode_images
from workers.stages.inputs import load_inputs
from workers.stages.shards import write_part

POOLS = Pools("cpu", PoolSize(1, 1), PoolSize(1, 1), 1)

#: Edge of what CLIP would see; nobody looks at it here.
CONDITION_SIZE = 32


def drawn(batch: Batch, fails: Sequence[str] = (), plain: bool = False) -> Batch:
    """The batch as it leaves the decoder; ids in `fails` are ruined there."""
    ids = batch.values("id", range(batch.samples.num_rows))
    reason = RowError("failed_to_generate", "a sick device")
    batch = batch.fail({row: reason for row in batch.pending if ids[row] in fails})
    pixels = {}
    for row, values in batch.rows(["seed", "image_index"], batch.pending).items():
        assert batch.bucket is not None
        rng = np.random.default_rng([values["seed"], values["image_index"], 1, 0])
        size = (batch.bucket.height, batch.bucket.width, 3)
        drawn_size = (1, 1, 3) if plain else size
        pixels[row] = np.broadcast_to(rng.integers(0, 256, drawn_size, dtype=np.uint8), size).tobytes()
    batch = batch.drop(["condition_inputs", "image_pixels", "mask_pixels"])
    batch = batch.add("pixels", pa.large_binary(), pixels)
    # As CLIP's would be: decided by the image alone.
    vectors = {row: kept_clip.unit(np.frombuffer(data[:6], np.uint8) + 1.0) for row, data in pixels.items()}
    column = kept_clip.column_of(vectors, batch.samples.num_rows)
    return batch if column is None else replace(batch, samples=batch.samples.append_column(kept_clip.COLUMN, column))


@dataclass
class Engine:
    """What stands in Ray's place.

    Attributes:
        order: decides which batch or seal is next.
        fails: ids of rows that no device can make.
        step: called before each batch and each seal; what it raises ends the run. What it returns is how often a batch
            comes: not at all, once, or twice, as where Ray makes a lost block again.
        plain: images of one colour, which are made in no time.
    """

    order: random.Random = field(default_factory=lambda: random.Random(0))
    fails: Sequence[str] = ()
    step: Callable[[str], int] = lambda what: 1
    plain: bool = False

    def run_pipeline(self, setup: Setup, work: Sequence[Work]) -> Iterator[Receipt]:
        """Stands for `jobs.engine.pipeline.run_pipeline`."""
        config = setup.config
        wanted = [(batch, which) for window, which in work for batch in window_batches(config, window, which)]
        self.order.shuffle(wanted)
        for batch, which in wanted:
            for _ in range(self.step("batch")):
                loaded = load_inputs(which.narrow(batch), CONDITION_SIZE)
                made = drawn(loaded, self.fails, self.plain).with_copies()
                yield write_part(encode_images(made, config), config.output)

    @property
    def ray(self) -> SimpleNamespace:
        """What `jobs.engine.ledger` uses of Ray."""
        return SimpleNamespace(remote=self._remote, wait=self._wait, get=self._get, exceptions=ray.exceptions)

    def _remote(self, **options: Any) -> Callable[[Callable[..., object]], SimpleNamespace]:
        return lambda task: SimpleNamespace(remote=lambda *given: _Call(task, given))

    def _wait(self, calls: list[_Call], num_returns: int, timeout: float) -> tuple[list[_Call], list[_Call]]:
        """Some of them end now, in any order; at least one where somebody waits."""
        ended = self.order.sample(calls, self.order.randint(1 if timeout else 0, len(calls)))
        for call in ended:
            self.step("seal")
            call.run()
        return ended, [call for call in calls if call not in ended]

    def _get(self, call: _Call) -> object:
        if call.error is not None:
            raise ray.exceptions.RayTaskError("seal", "", call.error)
        return call.result


@dataclass(eq=False)
class _Call:
    """A task that was started."""

    task: Callable[..., object]
    given: tuple[Any, ...]
    result: object = None
    error: Exception | None = None

    def run(self) -> None:
        try:
            self.result = self.task(*self.given)
        except Exception as error:
            self.error = error


@contextmanager
def in_place_of_ray(engine: Engine) -> Iterator[None]:
    """Within the block the job runs on this engine."""
    schedule = SimpleNamespace(name="pools", reason="simulated", in_words="simulated", pools=POOLS)
    at_start = {
        "cluster": lambda notify: nullcontext([]),
        "engine_log": lambda: nullcontext(SimpleNamespace(text="")),
        "choose_device": lambda config, npus: DeviceChoice("cpu", "simulated"),
        "arrange": lambda *given: schedule,
        "start_attempts": nullcontext,
        "run_pipeline": engine.run_pipeline,
    }
    at_end = {
        "connecting": lambda notify: nullcontext(),
        "devices": lambda setup: (),
        "compilations": lambda setup: (),
        "losses": lambda setup: ({}, 0, ()),
        "timeline": lambda attempts: None,
        "_versions": dict,
    }
    with ExitStack() as stack:
        stack.enter_context(patch.multiple(running, **at_start))
        stack.enter_context(patch.multiple(job, **at_end))
        stack.enter_context(patch("jobs.engine.ledger.ray", engine.ray))
        # Once, and not by a thread whose moments nobody decides.
        stack.enter_context(patch.object(StatusFile, "begin", lambda status: status._write("running", "", 1.0)))
        real = stack.enter_context(patch("ray.init"))
        yield
        # A story starts the job many times, and a thousand Rays would end this process.
        real.assert_not_called()


def generate(
    config: RunConfig, engine: Engine | None = None, beat_s: float = threading.TIMEOUT_MAX
) -> job.RunReport | PriorReport:
    """Run the job to its end, as `jobs/generate.py` does, on a new machine; who held the output before is dead.

    Args:
        beat_s: seconds between two beats of its lease, which come from a thread whose moments nobody decides.
    """
    machine = uuid.uuid4().hex
    with (
        in_place_of_ray(engine or Engine()),
        patch.multiple(lease, LOOK_S=0.0, STALE_S=0.0, FRESH_S=0.0, BEAT_S=beat_s),
        patch("jobs.leases.files.machine", lambda: machine),
        RunProgress(io.StringIO()) as progress,
    ):
        return job.run_job(config, progress)
