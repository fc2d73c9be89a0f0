"""A device that ends every process is taken out and named; no row is blamed, and the other devices make everything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from jobs.engine.broken_devices import Holder, TakenOut
from tests.faults.conftest import ROOT, QuickJob, shard_files
from tests.nodes import ray_nodes
from workers.fault_tolerance.attempts import Broken

pytestmark = [pytest.mark.faults, pytest.mark.ray]

SCRIPT = ROOT / "tests" / "faults" / "broken_device_generate.py"


@dataclass(frozen=True)
class BrokenJob(QuickJob):
    """The quick job, with a script that breaks devices."""

    def command(self, output: Path | str, *more: str) -> list[str]:
        python, _, *rest = super().command(output, *more)
        return [python, str(SCRIPT), *rest]


def cluster_with(environment: dict[str, str], npus: int) -> AbstractContextManager[Cluster]:
    """NPUs that are none: Ray counts and assigns them all the same."""
    return ray_nodes(environment, {"num_cpus": 4, "object_store_memory": 100 << 20, "resources": {"NPU": npus}})


@pytest.fixture(scope="module")
def three_npus(clean_environment: dict[str, str]) -> Iterator[Cluster]:
    with cluster_with(clean_environment, npus=3) as npus:
        yield npus


def broken(job: QuickJob, npus: Cluster, which: str) -> BrokenJob:
    environment = {**job.environment, "RAY_ADDRESS": npus.address, "BROKEN_NPU": which}
    return BrokenJob(job.manifest, job.folder, environment)


def test_the_other_devices_make_everything(
    quick_job: QuickJob, undisturbed: dict[str, bytes], three_npus: Cluster, tmp_path: Path
) -> None:
    ended = broken(quick_job, three_npus, str(tmp_path / "broken")).run(tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    assert f"NPU {(tmp_path / 'broken').read_text()} of" in ended.stderr, ended.stderr
    assert "is taken out: processes die there on a small call that is known to be good" in ended.stderr
    assert "going on with 1 prior and 1 decoder actors" in ended.stderr
    # The process that had it was ended with its pipeline.
    assert "still in use" not in ended.stderr
    assert shard_files(tmp_path / "out") == undisturbed


@pytest.mark.nightly
def test_when_too_few_devices_are_left_the_run_ends_with_the_reason(
    quick_job: QuickJob, clean_environment: dict[str, str], tmp_path: Path
) -> None:
    with cluster_with(clean_environment, npus=2) as npus:
        ended = broken(quick_job, npus, "all").run(tmp_path / "out")
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert "batches are missing: the pools need 2 NPUs or more, and 1 of the cluster's are left; NPU" in last, (
        ended.stderr
    )
    assert "is taken out: processes die there" in last
    assert "the same command goes on from here" in last


@pytest.mark.nightly
def test_rows_that_are_tried_again_leave_a_broken_device_too(
    quick_job: QuickJob, undisturbed: dict[str, bytes], three_npus: Cluster, tmp_path: Path
) -> None:
    failing = quick_job.with_environment(QUICK_FAILS="r07,r31").run(tmp_path / "out")
    assert "2 failed" in failing.stderr + failing.stdout
    job = broken(quick_job, three_npus, str(tmp_path / "broken")).with_environment(BROKEN_RAISES="1")
    # With so few batches another decoder might take them all.
    ended = job.run(tmp_path / "out", "--retry-errors", "--decoder-actors", "1")
    assert ended.returncode == 0, ended.stderr
    assert "a small call that is known to be good fails there (RuntimeError: device lost)" in ended.stderr
    assert "going on with 1 prior and 1 decoder actors" in ended.stderr
    assert quick_job.wrong(tmp_path / "out") == []
    assert shard_files(tmp_path / "out") == undisturbed


def test_a_device_that_is_held_is_given_to_nobody_until_it_is_let_go(three_npus: Cluster) -> None:
    ray.init(three_npus.address, log_to_driver=False)
    try:
        node = ray.get_runtime_context().get_node_id()
        taken_out = TakenOut().hold([Broken(f"{node}/npu-1", node, "NPU 1 is taken out")], print)
        assert [each["NPU"] for each in taken_out.nodes()] == [2]
        anybody = ray.remote(num_cpus=0, resources={"NPU": 1})(Holder)
        actors = [anybody.remote() for _ in range(3)]
        asked = [actor.device.remote() for actor in actors]
        told, waiting = ray.wait(asked, num_returns=2, timeout=300)
        assert sorted(ray.get(told)) == [f"{node}/npu-0", f"{node}/npu-2"]
        assert ray.wait(waiting, timeout=3) == ([], waiting)
        del taken_out
        assert ray.get(waiting, timeout=300) == [f"{node}/npu-1"]
    finally:
        ray.shutdown()
