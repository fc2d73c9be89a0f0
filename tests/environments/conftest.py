"""For tests of odd machines: the job with made-up models, started the way an odd shell would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.finished_run import write_manifest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "faults" / "quick_generate.py"
ROWS = [{"id": f"r{i}", "task": "text2img", "prompt": f"p {i}", "seed": i, "num_images": 1} for i in range(4)]
OPTIONS = ("--batch-size", "2", "--shard-size", "2", "--height", "64", "--width", "64")

#: A run that takes longer hangs.
RUN_LIMIT_S = 480

#: Words before a command that take root's power over other people's files away, so that rights count in tests as root.
POWERLESS = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
is_root = os.getuid() == 0


@dataclass(frozen=True)
class OddJob:
    """The job on four images, in a process of its own."""

    manifest: str
    environment: Mapping[str, str]

    def command(self, output: Path | str) -> list[str]:
        return [sys.executable, str(SCRIPT), "--manifest", self.manifest, "--output", str(output), *OPTIONS]

    def start(
        self, output: Path | str, folder: Path, before: Sequence[str] = (), **environment: str | None
    ) -> subprocess.Popen[str]:
        """Start it.

        Args:
            before: words before the command.
            environment: set on top; None takes a variable away.
        """
        changed = {**self.environment, **environment}
        return subprocess.Popen(
            [*before, *self.command(output)],
            cwd=folder,
            env={name: value for name, value in changed.items() if value is not None},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, output: Path | str, folder: Path, before: Sequence[str] = (), **environment: str | None
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        with self.start(output, folder, before, **environment) as process:
            try:
                stdout, stderr = process.communicate(timeout=RUN_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                stdout, stderr = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


@pytest.fixture(scope="session")
def odd_job(clean_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> OddJob:
    manifest = write_manifest(tmp_path_factory.mktemp("odd") / "m.parquet", ROWS)
    # A person's shell has nothing that tells processes where our source is.
    return OddJob(manifest, {name: value for name, value in clean_environment.items() if name != "PYTHONPATH"})


@pytest.fixture(scope="session")
def foreign_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with packages named as ours, of which any import would be seen."""
    folder = tmp_path_factory.mktemp("theirs")
    for package in ("workers", "jobs", "manifests"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text("raise ImportError('this is somebody else')\n")
    return folder


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder whose name leaves room for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="kb", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def not_mine(tmp_path: Path) -> Iterator[Path]:
    """A folder that this user may read only."""
    folder = Path(tempfile.mkdtemp(prefix="kb", dir="/tmp"))
    folder.chmod(0o555)
    if is_root:
        os.chown(folder, 65534, 65534)
    yield folder
    folder.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
