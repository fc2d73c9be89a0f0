"""Two jobs on one output: by mistake the second is refused, on purpose (`--shards`) they share the work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.conftest import QuickJob, shard_files, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.ray]


def test_the_second_job_is_refused_and_the_first_goes_on(
    quick_job: QuickJob, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    # Of one window, the first share is empty and the second has all of it.
    first = quick_job.start(output, "--shards", "2/2")
    wait_for((output / "_run" / "plan.json").exists, first)
    second = quick_job.run(output)
    assert second.returncode == 2
    assert f"another job works on {output}: process {first.pid} on" in second.stderr.splitlines()[-1]
    other = quick_job.run(output, "--shards", "1/2")
    assert other.returncode == 0, other.stderr
    assert "this was one share; 6 shards are the work of other jobs" in other.stdout
    assert first.poll() is None
    assert not (output / "_SUCCESS").exists()
    _, told = first.communicate()
    assert first.returncode == 0, told
    assert (output / "_SUCCESS").exists()
    assert shard_files(output) == undisturbed
    assert quick_job.verify(output).returncode == 0
