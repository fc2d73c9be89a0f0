"""`--retry-errors`: failed rows are made again, and only they; the output is then as if nothing had failed."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from manifests import storage
from tests.faults.conftest import QuickJob, shard_files, wait_for
from workers.stages.reseal import RESEAL_FOLDER, RETRY_FOLDER

pytestmark = [pytest.mark.faults, pytest.mark.ray]

FAILS = {"QUICK_FAILS": "r03,r04,r05,r06,r59"}


def test_failed_rows_are_made_again_and_a_kill_in_the_middle_loses_nothing(
    quick_job: QuickJob, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    ended = quick_job.with_environment(**FAILS).run(output)
    assert ended.returncode == 3, ended.stderr
    broken = shard_files(output)
    assert broken != undisturbed

    # Killed while it tries: without the option everything is as it was.
    process = quick_job.with_environment(QUICK_SECONDS="1").start(output, "--retry-errors")
    wait_for(lambda: storage.list_names(str(output / RETRY_FOLDER / "_run" / "parts" / "00000")), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert shard_files(output) == broken or not (output / RESEAL_FOLDER).exists()

    ended = quick_job.run(output, "--retry-errors")
    assert ended.returncode == 0, ended.stderr
    assert shard_files(output) == undisturbed
    assert (output / "_SUCCESS").exists()
    proved = quick_job.verify(output)
    assert proved.returncode == 0, proved.stdout
    report = json.loads((output / "_run" / "run.json").read_text())
    assert report["made"] <= len(FAILS["QUICK_FAILS"].split(","))
