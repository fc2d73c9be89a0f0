"""Two jobs on one output: by mistake the second is refused, on purpose (`--shards`) they share the work."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.run.watching import Watcher
from tests.faults.conftest import QuickJob, shard_files, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.ray]


def test_the_second_job_is_refused_and_the_first_goes_on(
    quick_job: QuickJob, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    go_on = tmp_path / "go_on"
    # Six shards: each share has three.
    first = quick_job.with_environment(QUICK_GO_ON=str(go_on)).start(output, "--shards", "2/2")
    wait_for((output / "_run" / "plan.json").exists, first)
    second = quick_job.run(output)
    assert second.returncode == 2
    assert f"another job works on {output}: process {first.pid} on" in second.stderr.splitlines()[-1]
    assert first.poll() is None
    go_on.touch()
    # On a Ray of its own: the first holds all of the cluster.
    other = quick_job.with_environment(RAY_ADDRESS="local").run(output, "--shards", "1/2")
    assert other.returncode == 0, other.stderr
    told, said = first.communicate()
    assert first.returncode == 0, said
    assert "(30 now in" in told
    assert "(30 now in" in other.stdout
    assert (output / "_SUCCESS").exists()
    assert shard_files(output) == undisturbed
    assert quick_job.wrong(output) == []
    state = Watcher(str(output)).look()
    assert (state.state, len(state.shares), state.facts.done) == ("done", 2, 60)
