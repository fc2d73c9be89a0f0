"""Inputs that never come: their rows fail, and nobody has to wait for them when the run shall end."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from manifests.commit import read_stats, staged_parts
from tests.faults.conftest import RUN_LIMIT_S, QuickJob, wait_for
from tests.unit.finished_run import write_manifest

pytestmark = [pytest.mark.faults, pytest.mark.ray]


@pytest.fixture
def job(quick_job: QuickJob, tmp_path: Path) -> Iterator[QuickJob]:
    """Eight rows of two batches, of which two rows of the second name what never comes."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        os.mkfifo(tmp_path / "pipe.png")
        Image.new("RGB", (64, 64), "teal").save(tmp_path / "good.png")
        bad = {5: f"http://127.0.0.1:{server.getsockname()[1]}/cat.png", 6: "pipe.png"}
        rows = [
            {"id": f"r{i}", "task": "img2img", "prompt": "a", "seed": i, "image": bad.get(i, "good.png")}
            for i in range(8)
        ]
        options = ("--batch-size", "4", "--height", "64", "--width", "64")
        yield replace(quick_job, manifest=write_manifest(tmp_path / "m.parquet", rows), options=options)


def test_rows_whose_inputs_never_come_fail_alone_and_the_run_goes_on(job: QuickJob, tmp_path: Path) -> None:
    # Far more than the good ones need, whatever the machine is busy with.
    ended = job.run(tmp_path / "out", "--input-timeout", "10")
    assert ended.returncode == 3, ended.stderr
    assert "did not come within 10 s" in ended.stdout
    assert "is a pipe and not a file" in ended.stdout
    stats = read_stats(str(tmp_path / "out"), 0)
    assert (stats.successes, stats.failed_by_status) == (6, {"failed_to_load": 2})
    assert job.wrong(tmp_path / "out") == []


def test_a_signal_does_not_wait_for_inputs_that_never_come(job: QuickJob, tmp_path: Path) -> None:
    output = tmp_path / "out"
    # Nobody waits here for what these allow.
    ever = str(10 * RUN_LIMIT_S)
    process = job.start(output, "--input-timeout", ever, "--grace", ever)
    wait_for(lambda: staged_parts(str(output)).get(0), process)
    time.sleep(3)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=RUN_LIMIT_S)
    assert process.returncode == 143, told
    assert "Traceback" not in told
