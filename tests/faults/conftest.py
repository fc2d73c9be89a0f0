"""For tests that break things: a job that starts in seconds."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import pytest

from jobs.verification.findings import Finding
from manifests.embeddings import kept_clip
from tests.once import Once
from tests.proof import wrong_with
from tests.unit.finished_run import write_manifest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "faults" / "quick_generate.py"

#: A run that takes longer hangs; what it has said by then tells where. The longest takes four minutes beside others.
RUN_LIMIT_S = 900

#: As many images as a test about many deaths needs, in shards of a few batches each.
ROWS = [{"id": f"r{i:02d}", "task": "text2img", "prompt": f"prompt {i}", "seed": i, "num_images": 1} for i in range(60)]


@dataclass(frozen=True)
class QuickJob:
    """The job on 60 images with made-up models, in a process of its own."""

    manifest: str
    folder: Path
    environment: dict[str, str]
    options: tuple[str, ...] = (
        *("--batch-size", "2", "--shard-size", "10", "--height", "64", "--width", "64"),
        # So few that a run on paper is as short as it is: more actors than one of each are for longer ones.
        *("--steps", "2", "--prior-steps", "2"),
        *("--scores", "clip_similarity,image_phash", "--keep-clip"),
    )

    def with_environment(self, **more: str) -> QuickJob:
        return replace(self, environment={**self.environment, **more})

    def command(self, output: Path | str, *more: str) -> list[str]:
        return [sys.executable, str(SCRIPT), "--manifest", self.manifest, "--output", str(output), *self.options, *more]

    def run(self, output: Path | str, *more: str) -> subprocess.CompletedProcess[str]:
        command = self.command(output, *more)
        try:
            return subprocess.run(
                command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=RUN_LIMIT_S
            )
        except subprocess.TimeoutExpired as hung:
            said = [(text or b"").decode() for text in (hung.stdout, hung.stderr)]
            return subprocess.CompletedProcess(command, -9, said[0], f"{said[1]}\nkilled after {RUN_LIMIT_S} s")

    def start(self, output: Path | str, *more: str, said: IO[str] | None = None) -> subprocess.Popen[str]:
        """Start it and go on; what it says goes to a pipe, or to `said`, which can be read meanwhile."""
        return subprocess.Popen(
            self.command(output, *more),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if said is None else said,
            text=True,
        )

    def repair(self, output: Path | str) -> subprocess.CompletedProcess[str]:
        """`verify.py --repair` on the made-up models."""
        return subprocess.run(
            [sys.executable, str(SCRIPT), "--manifest", self.manifest, "--output", str(output), "--repair"],
            cwd=self.folder,
            env={**self.environment, "QUICK_VERIFY": "1"},
            capture_output=True,
            text=True,
            timeout=RUN_LIMIT_S,
        )

    def wrong(self, output: Path | str) -> list[Finding]:
        """Everything that is wrong with an output."""
        return wrong_with(output, self.manifest)


def shard_files(output: Path) -> dict[str, bytes]:
    """Committed files by name, with those of embeddings that are kept."""
    files = [*output.iterdir(), *(output / kept_clip.FOLDER).rglob("*")]
    # Not what a killed writer has left under a temporary name.
    return {p.name: p.read_bytes() for p in sorted(files) if re.search(r"^(\d{5}|[a-z].*_\d{5}\.)", p.name)}


def wait_for(happened: Callable[[], object], process: subprocess.Popen[str], seconds: float = RUN_LIMIT_S) -> None:
    """Until something has happened, or the process has ended; one that hangs is ended, with its part of the cluster."""
    deadline = time.monotonic() + seconds
    while not happened() and process.poll() is None:
        if time.monotonic() >= deadline:
            process.kill()
            raise AssertionError(f"it did not happen within {seconds:g} s")
        time.sleep(0.02)


@pytest.fixture(scope="session")
def quick_job(shared_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> QuickJob:
    folder = tmp_path_factory.mktemp("quick")
    environment = {**shared_environment, "PYTHONPATH": str(ROOT)}
    return QuickJob(write_manifest(folder / "m.parquet", ROWS), folder, environment)


@pytest.fixture(scope="session")
def undisturbed_output(quick_job: QuickJob, once: Once) -> Path:
    """Output of the job when nothing happens to it; who changes something takes a copy."""

    def make(folder: Path) -> None:
        ended = quick_job.run(folder / "out")
        assert ended.returncode == 0, ended.stderr

    return once("quick-undisturbed", make) / "out"


@pytest.fixture(scope="session")
def undisturbed(undisturbed_output: Path) -> dict[str, bytes]:
    """What the job makes when nothing happens to it."""
    return shard_files(undisturbed_output)
