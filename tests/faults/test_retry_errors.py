"""Rows that fail: too many end the run (`--max-failed`), and `--retry-errors` makes them again, and only them."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from manifests import storage
from tests.faults.conftest import QuickJob, shard_files, wait_for
from workers.stages.reseal import RETRY_FOLDER

pytestmark = [pytest.mark.faults, pytest.mark.ray]

#: Of two shards, in several batches of each.
FAILS = {"QUICK_FAILS": "r03,r04,r05,r06,r57,r59"}


def test_failed_rows_are_made_again_and_a_kill_in_the_middle_loses_nothing(
    quick_job: QuickJob, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    sick = quick_job.with_environment(**FAILS)
    ended = sick.run(output, "--max-failed", "1")
    assert ended.returncode == 1, ended.stderr
    said = ended.stderr.splitlines()[-1]
    assert re.match(r"error: [2-6] of 60 images have failed, and --max-failed 1 lets no more than 1: ", said)
    assert " failed_to_generate, such as r" in said
    assert ": a sick device. Either mend the cause and start the same command with --retry-errors, or go on" in said
    assert not (output / "_SUCCESS").exists()
    # What failed is counted at the next start too, before anything else is begun.
    again = sick.run(output, "--max-failed", "1")
    assert again.returncode == 1, again.stderr
    assert re.match(r"error: [2-6] of 60 images have failed, ", again.stderr.splitlines()[-1])
    assert "starting Ray" not in again.stderr

    ended = sick.run(output, "--max-failed", "10%")
    assert ended.returncode == 3, ended.stderr
    assert "going on from" in ended.stderr
    broken = shard_files(output)
    assert broken != undisturbed

    # Killed while it tries: one batch is made, which is none of the shards whole, and the next one stands still.
    process = quick_job.with_environment(QUICK_GO_ON=str(tmp_path / "never")).start(output, "--retry-errors")
    parts = str(output / RETRY_FOLDER / "_run" / "parts")
    wait_for(lambda: [*storage.list_names(f"{parts}/00000"), *storage.list_names(f"{parts}/00005")], process)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert shard_files(output) == broken

    ended = quick_job.run(output, "--retry-errors")
    assert ended.returncode == 0, ended.stderr
    assert shard_files(output) == undisturbed
    assert (output / "_SUCCESS").exists()
    assert quick_job.wrong(output) == []
    report = json.loads((output / "_run" / "run.json").read_text())
    assert report["made"] <= len(FAILS["QUICK_FAILS"].split(","))

    # Damaged images are made again like rows that failed.
    for number, place in ((0, 2000), (3, 20_000)):
        data = bytearray(undisturbed[f"{number:05d}.tar"])
        data[place] ^= 1
        (output / f"{number:05d}.tar").write_bytes(data)
    ended = quick_job.repair(output)
    assert ended.returncode == 0, ended.stderr
    assert "2 images are lost and made again" in ended.stderr
    assert "shard 00000: mended: 00000.tar\nshard 00003: mended: 00003.tar\n" in ended.stdout
    assert shard_files(output) == undisturbed
