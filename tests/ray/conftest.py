"""For tests that run the real job: its script in a process of its own, as a person starts it."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.once import Once
from tests.ray.mixed_rows import ROWS

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

ROOT = Path(__file__).resolve().parents[2]

#: The smallest images and the fewest steps that the models take: these tests are about the line, not the pictures.
SMALL: dict[str, Any] = {"height": 64, "width": 64, "steps": 2, "prior_steps": 2}


@dataclass(frozen=True)
class Job:
    """`jobs/generate.py` on one manifest, started in a folder that is not the source tree.

    Attributes:
        manifest: what it reads.
        folder: where it is started.
        environment: of the process.
        options: given on every start.
    """

    manifest: Path
    folder: Path
    environment: dict[str, str]
    options: tuple[str, ...] = ("--batch-size", "2", "--shard-size", "4")

    def command(self, output: Path, *more: str) -> list[str]:
        script = str(ROOT / "jobs" / "generate.py")
        places = ["--manifest", str(self.manifest), "--output", str(output)]
        # Smaller than the trained one; what has to be looked at names that.
        return [sys.executable, script, *places, "--checkpoint", "random", *self.options, *more]

    def run(self, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
        """Start it and wait for its end."""
        return subprocess.run(
            self.command(output, *more), cwd=self.folder, env=self.environment, capture_output=True, text=True
        )

    def start(self, output: Path, *more: str) -> subprocess.Popen[str]:
        """Start it in a process group of its own and go on."""
        return subprocess.Popen(
            self.command(output, *more),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


def images_of(output: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Pixels of every image of an output, by its key."""
    found = {}
    for path in output.glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if member.name.endswith(".png") and file is not None:
                    found[member.name.removesuffix(".png")] = np.asarray(Image.open(io.BytesIO(file.read())))
    return found


def write_manifest(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """A manifest with the union of the rows' columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    kinds = {"seed": pa.uint64()}  # Arrow would guess int64, which seeds above 2^63 overflow
    columns = {name: pa.array([row.get(name) for row in rows], kinds.get(name)) for name in names}
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def driver(ray_cluster: Cluster) -> Iterator[None]:
    """This process is connected to the shared cluster meanwhile, and leaves nothing of it to the next test."""
    import ray
    from ray.data import DataContext

    ray.init(ray_cluster.address, log_to_driver=False)
    yield
    ray.shutdown()
    DataContext._set_current(DataContext())


@pytest.fixture(scope="session")
def make_job(
    tmp_path_factory: pytest.TempPathFactory, shared_environment: dict[str, str]
) -> Callable[[Sequence[dict[str, Any]]], Job]:
    """Makes a job of the rows of a manifest, for the shared cluster."""

    def make(rows: Sequence[dict[str, Any]]) -> Job:
        folder = tmp_path_factory.mktemp("job")
        return Job(write_manifest(folder / "requests.parquet", rows), folder, shared_environment)

    return make


@pytest.fixture(scope="session")
def mixed_job(once: Once, shared_environment: dict[str, str]) -> Job:
    """All that `mixed_rows.py` has, of the smallest size."""
    rows = [{**SMALL, **row} for row in ROWS]
    folder = once("mixed-job", lambda new: write_manifest(new / "requests.parquet", rows))
    return Job(folder / "requests.parquet", folder, shared_environment)


@pytest.fixture(scope="session")
def finished(
    mixed_job: Job, once: Once, clean_environment: dict[str, str]
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The mixed job's output and how its process ended, which made a Ray of its own."""

    def make(folder: Path) -> None:
        ended = replace(mixed_job, environment=clean_environment).run(folder / "out")
        (folder / "ended").write_bytes(pickle.dumps(ended))

    folder = once("finished", make)
    return folder / "out", pickle.loads((folder / "ended").read_bytes())
