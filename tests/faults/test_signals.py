"""SIGTERM and SIGINT in the middle of a run: what is on the devices is kept, and the same command goes on."""

from __future__ import annotations

import signal
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
    output, said, go_on = tmp_path / "out", tmp_path / "said", tmp_path / "go_on"
    # With more grace than anybody waits here, and a batch on the device until the signal has come.
    slow = quick_job.with_environment(QUICK_SECONDS="1", QUICK_GO_ON=str(go_on))
    with open(said, "w") as file:
        process = slow.start(output, "--grace", str(10 * RUN_LIMIT_S), said=file)
    # Its driver knows of the first batch, and will wait for another one.
    wait_for(lambda: "making images" in said.read_text(), process)
    before = staged_parts(str(output))
    process.send_signal(number)
    wait_for(lambda: "finishing what is in flight" in said.read_text(), process)
    go_on.touch()
    process.communicate(timeout=RUN_LIMIT_S)
    told = said.read_text()
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


@pytest.mark.parametrize(("phase", "moment"), [("starting Ray", 0.7), ("starting the pools", 4.0)])
def test_a_run_without_grace_ends_at_once(quick_job: QuickJob, tmp_path: Path, phase: str, moment: float) -> None:
    output, said = tmp_path / "out", tmp_path / "said"
    # A batch that anybody waited for would never come.
    slow = quick_job.with_environment(QUICK_SECONDS=str(10 * RUN_LIMIT_S))
    with open(said, "w") as file:
        process = slow.start(output, "--grace", "0", said=file)
    wait_for(lambda: phase in said.read_text(), process)
    time.sleep(moment)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=RUN_LIMIT_S)
    assert process.returncode == 143, said.read_text()
