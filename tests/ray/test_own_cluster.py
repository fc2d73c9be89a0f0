"""A cluster that a job starts for itself has what the job needs; one that is there is taken as it is, and whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.engine.connection import PATIENCE

ROOT = Path(__file__).resolve().parents[2]

HELPERS = """
from pathlib import Path

import ray
from ray._private import worker
from ray.data._internal.cluster_autoscaler import DefaultAutoscalingCoordinator as Coordinator
from ray.data._internal.execution.operators import actor_pool_map_operator as pool
from ray.data._internal.stats import _StatsManager
from jobs.engine.cluster import cluster

class Add:
    def __init__(self, number):
        self.number = number

    def __call__(self, batch):
        return {"id": batch["id"] + self.number}

before = dict(vars(Coordinator)), dict(vars(_StatsManager)), dict(vars(pool))
with cluster():
    rows = ray.data.range(6).map_batches(Add, fn_constructor_args=[1], concurrency=1).take_all()
    assert sorted(row["id"] for row in rows) == [1, 2, 3, 4, 5, 6], rows
    helpers = {actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)}
    print("actors", *sorted(helpers & {"ActorLocationTracker", "AutoscalingCoordinator", "datasets_stats_actor"}))
    print("processes", *sorted(worker._global_node.all_processes))
    for raylet in worker._global_node.all_processes.get("raylet", []):
        given = Path(f"/proc/{raylet.process.pid}/environ").read_text().split("\\0")
        print("settings", *sorted(each for each in given if "register_timeout" in each))
assert before == (dict(vars(Coordinator)), dict(vars(_StatsManager)), dict(vars(pool)))
"""


def _said(script: str, environment: dict[str, str]) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def _helpers(environment: dict[str, str]) -> dict[str, list[str]]:
    """Processes and actors that a job's cluster has beside those that work."""
    lines = _said(HELPERS, environment).splitlines()
    return {words[0]: words[1:] for words in map(str.split, lines) if words}


@pytest.mark.ray
def test_a_cluster_of_the_jobs_own_has_no_process_that_serves_others_and_waits_for_its_own(
    clean_environment: dict[str, str],
) -> None:
    # The tests' own nodes are as patient by these.
    found = _helpers({name: value for name, value in clean_environment.items() if name not in PATIENCE})
    assert not {"monitor", "log_monitor", "dashboard"} & set(found["processes"])
    assert "raylet" in found["processes"]
    assert found["actors"] == []
    assert found["settings"] == [f"{name}={value}" for name, value in PATIENCE.items()]


SLOW_AGENTS = """
import os, sys, time

while "/agent" in " ".join(sys.orig_argv) and not os.path.exists(os.environ["AGENTS_GO_ON"]):
    time.sleep(0.1)
"""

BESIDE_SLOW_AGENTS = """
import os
from pathlib import Path

import ray
from jobs.engine.cluster import cluster

with cluster() as nodes:
    assert len(nodes) == 1
    Path(os.environ["AGENTS_GO_ON"]).touch()
    assert ray.get(ray.remote(lambda: 1).remote()) == 1
"""


@pytest.mark.ray
def test_a_cluster_of_the_jobs_own_is_there_before_its_agents(
    clean_environment: dict[str, str], tmp_path: Path
) -> None:
    # On a busy machine they take longer than the fifteen seconds after which a raylet that waits for them ends itself.
    (tmp_path / "sitecustomize.py").write_text(SLOW_AGENTS)
    slow = {"PYTHONPATH": str(tmp_path), "AGENTS_GO_ON": str(tmp_path / "go_on")}
    _said(BESIDE_SLOW_AGENTS, {**clean_environment, **slow})


@pytest.mark.ray
def test_on_a_cluster_that_others_use_too_the_engine_has_its_actors(shared_environment: dict[str, str]) -> None:
    found = _helpers(shared_environment)
    assert found["processes"] == []
    assert found["actors"] == ["ActorLocationTracker", "AutoscalingCoordinator", "datasets_stats_actor"]


ASKED_BY_OTHERS = """
import ray
from ray.data import DataContext
from ray.data._internal.cluster_autoscaler import DefaultAutoscalingCoordinator as Coordinator
from ray.data._internal.cluster_autoscaler.base_autoscaling_coordinator import STANDARD_RESOURCE_TYPES
from ray.data._internal.execution.execution_callback import ExecutionCallback
from jobs.engine.cluster import cluster

class Ask(ExecutionCallback):
    def on_execution_step(self, executor):
        limits = executor._resource_manager.get_global_limits()
        found.add((limits.cpu, limits.memory))

found = set()
with cluster() as nodes:
    others = [Coordinator(f"killed-{number}") for number in range(9)]
    for other in others:
        other.request_resources([{"CPU": 1.0}], expire_after_s=600, request_remaining=STANDARD_RESOURCE_TYPES)
    DataContext.get_current().custom_execution_callback_classes = [Ask]
    ray.data.range(6).map(lambda row: row).take_all()
    assert found == {(nodes[0]["CPU"], nodes[0]["memory"])}, (found, nodes)
    for other in others:
        other.cancel_request()
"""


@pytest.mark.ray
def test_who_else_has_asked_for_a_part_of_a_cluster_takes_nothing_away(shared_environment: dict[str, str]) -> None:
    # As jobs do that are killed: Ray Data keeps a part for each of them, for three minutes.
    _said(ASKED_BY_OTHERS, shared_environment)
