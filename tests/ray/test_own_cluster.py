"""A cluster that a job starts for itself has what the job needs; one that is there is taken as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

HELPERS = """
import ray
from ray._private import worker
from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator as coordinator
from ray.data._internal.stats import _StatsManager
from jobs.engine.cluster import cluster

class Add:
    def __init__(self, number):
        self.number = number

    def __call__(self, batch):
        return {"id": batch["id"] + self.number}

before = coordinator.get_or_create_autoscaling_coordinator, _StatsManager.update_execution_metrics
with cluster():
    rows = ray.data.range(6).map_batches(Add, fn_constructor_args=[1], concurrency=1).take_all()
    assert sorted(row["id"] for row in rows) == [1, 2, 3, 4, 5, 6], rows
    helpers = {actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)}
    print("actors", *sorted(helpers & {"AutoscalingCoordinator", "datasets_stats_actor"}))
    print("processes", *sorted(worker._global_node.all_processes))
assert before == (coordinator.get_or_create_autoscaling_coordinator, _StatsManager.update_execution_metrics)
"""


def _helpers(environment: dict[str, str]) -> dict[str, list[str]]:
    """Processes and actors that a job's cluster has beside those that work."""
    ended = subprocess.run(
        [sys.executable, "-c", HELPERS], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200
    )
    assert ended.returncode == 0, ended.stderr
    return {words[0]: words[1:] for words in (line.split() for line in ended.stdout.splitlines()) if words}


@pytest.mark.ray
def test_a_cluster_of_the_jobs_own_has_no_process_that_serves_others(clean_environment: dict[str, str]) -> None:
    found = _helpers(clean_environment)
    assert not {"monitor", "log_monitor", "dashboard"} & set(found["processes"])
    assert "raylet" in found["processes"]
    assert found["actors"] == []


@pytest.mark.ray
def test_on_a_cluster_that_others_use_too_the_engine_has_its_actors(shared_environment: dict[str, str]) -> None:
    found = _helpers(shared_environment)
    assert found["processes"] == []
    assert found["actors"] == ["AutoscalingCoordinator", "datasets_stats_actor"]
