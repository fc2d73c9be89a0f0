"""SIGTERM and SIGINT in the middle of a run: what is on the devices is kept, and the same command goes on."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from manifests.commit import sealed_shards, staged_parts
from tests.faults.conftest import RUN_LIMIT_S, QuickJob, shard_files, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.ray]


@pytest.mark.parametrize(("number", "code", "name"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "SIGINT")])
def test_a_signal_lets_the_devices_finish_and_the_run_goes_on_later(
    quick_job: QuickJob, undisturbed: dict[str, bytes], tmp_path: Path, number: int, code: int, name: str
) -> None:
    output = tmp_path / "out"
    # With more grace than anybody waits here.
    process = quick_job.with_environment(QUICK_SECONDS="1").start(output, "--grace", str(10 * RUN_LIMIT_S))
    wait_for(lambda: sealed_shards(str(output)) or len(staged_parts(str(output)).get(0, ())) >= 2, process)
    before = staged_parts(str(output))
    process.send_signal(number)
    _, told = process.communicate(timeout=RUN_LIMIT_S)
    assert process.returncode == code, told
    assert told.splitlines()[-1] == f"interrupted ({name}); the same command goes on from here"
    assert "finishing what is in flight" in told
    assert "Traceback" not in told
    after = staged_parts(str(output))
    # The batch that was on the device when the signal came.
    assert sealed_shards(str(output)) or sum(map(len, after.values())) > sum(map(len, before.values()))
    assert not (output / "_SUCCESS").exists()
    if number == signal.SIGINT:
        return
    ended = quick_job.run(output)
    assert ended.returncode == 0, ended.stderr
    assert "going on from" in ended.stderr
    assert shard_files(output) == undisturbed


def _until(process: subprocess.Popen[str], phase: str) -> None:
    """Read what the run says, until it says this."""
    assert process.stderr is not None
    for line in process.stderr:
        if phase in line:
            return


@pytest.mark.parametrize(("phase", "moment"), [("starting Ray", 0.7), ("starting the pools", 4.0)])
def test_a_run_without_grace_ends_at_once(quick_job: QuickJob, tmp_path: Path, phase: str, moment: float) -> None:
    output = tmp_path / "out"
    # A batch that anybody waited for would never come.
    process = quick_job.with_environment(QUICK_SECONDS=str(10 * RUN_LIMIT_S)).start(output, "--grace", "0")
    _until(process, phase)
    time.sleep(moment)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=RUN_LIMIT_S)
    assert process.returncode == 143, told
