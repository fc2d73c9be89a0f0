"""`--schedule phases`: the same bytes as with two pools, whatever fails or dies in either phase."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from manifests import storage
from manifests.commit import sealed_shards, staged_parts
from tests.faults.conftest import QuickJob, shard_files, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.ray]

PHASES = ("--schedule", "phases")

#: Twenty rows are two shards, and there are three pieces.
PIECES = {"QUICK_PIECE_ROWS": "20"}


def stored(output: Path) -> set[str]:
    """Names of what is stored of embeddings; what is still being written, or was when its writer died, is not."""
    return set(storage.list_names(str(output / "_run" / "embeddings" / "parts")))


def made(output: Path) -> int:
    """Batches of all shards; five are one."""
    return 5 * len(sealed_shards(str(output))) + sum(map(len, staged_parts(str(output)).values()))


def test_killed_in_either_phase_it_goes_on_from_what_is_stored(
    quick_job: QuickJob, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"

    # A piece has ten batches, so this one embeds until it is killed.
    process = quick_job.with_environment(QUICK_PRIOR_BATCHES="6", **PIECES).start(output, *PHASES)
    wait_for(lambda: len(stored(output)) >= 2, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert made(output) == 0, "it was still embedding"
    in_prior = stored(output)
    assert in_prior

    # And this one decodes.
    process = quick_job.with_environment(QUICK_GO_ON=str(tmp_path / "never"), **PIECES).start(output, *PHASES)
    wait_for(lambda: made(output), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert made(output) == 1
    parts = stored(output)
    assert parts >= in_prior

    ended = quick_job.with_environment(**PIECES).run(output, *PHASES)
    assert ended.returncode == 0, ended.stderr
    assert "images are known" in ended.stderr, "what the killed ones embedded was not lost"
    assert stored(output) >= parts
    assert shard_files(output) == undisturbed
    assert quick_job.wrong(output) == []


# Rows that fail while inputs are loaded do so in the real models' run (tests/ray/test_schedule.py).
@pytest.mark.nightly
def test_rows_that_the_prior_fails_fail_alike_in_both_schedules(quick_job: QuickJob, tmp_path: Path) -> None:
    failing = quick_job.with_environment(QUICK_PRIOR_FAILS="r07,r41", QUICK_FAILS="r20", **PIECES)
    outputs = {}
    for schedule in ("pools", "phases"):
        ended = failing.run(tmp_path / schedule, "--schedule", schedule, "--embeddings", "none")
        assert ended.returncode == 3, ended.stderr
        report = json.loads((tmp_path / schedule / "_run" / "run.json").read_text())
        assert report["failed_by_status"] == {"failed_to_embed": 2, "failed_to_generate": 1}
        assert (report["schedule"], report["schedule_reason"]) == (schedule, f"--schedule {schedule}")
        outputs[schedule] = shard_files(tmp_path / schedule)
        if schedule == "phases":
            assert re.findall(r"piece (\d) of 3: 1 prior, then 1 decoder actors", ended.stderr) == ["1", "2", "3"]
            assert report["embedded"] == 58
    assert outputs["pools"] == outputs["phases"]
    assert not (tmp_path / "phases" / "_run" / "between_phases").exists(), "what it was told not to keep is gone"


@pytest.mark.nightly
def test_failed_rows_are_tried_again_in_phases(
    quick_job: QuickJob, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    ended = quick_job.with_environment(QUICK_PRIOR_FAILS="r07", QUICK_FAILS="r20").run(tmp_path, *PHASES)
    assert ended.returncode == 3, ended.stderr
    ended = quick_job.run(tmp_path, *PHASES, "--retry-errors")
    assert ended.returncode == 0, ended.stderr
    assert shard_files(tmp_path) == undisturbed


def test_a_prior_that_fails_every_row_ends_the_run_before_anything_is_decoded(
    quick_job: QuickJob, tmp_path: Path
) -> None:
    sick = quick_job.with_environment(QUICK_PRIOR_FAILS=",".join(f"r{row:02d}" for row in range(60)), **PIECES)
    ended = sick.run(tmp_path, *PHASES, "--max-failed", "5")
    assert ended.returncode == 1
    assert "a sick prior" in ended.stderr
    assert made(tmp_path) == 0
