"""For all tests: one cache for the demo checkpoint, the environment that MindSpore needs, and what many tests share.

Processes of the job itself must set that environment themselves; `clean_environment` gives what a person's shell has.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import pytest
from hypothesis import HealthCheck, settings

from tests.nodes import nodes_environment
from tests.once import Once
from tests.s3_server import S3Server
from workers.device.device import PROCESS_ENVIRONMENT

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

# The same examples in every run: what fails here has been broken by a change. `--hypothesis-profile=random` looks
# further. No time limits: an example takes as long as the machine is busy.
untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", untimed, derandomize=True)
settings.register_profile("random", untimed, derandomize=False)
settings.load_profile("same")

# Ray's workers stand back behind everything else otherwise: beside anything busy they would hardly move.
# And a cluster that is not the job's own would start processes that report how it is used.
os.environ.update(RAY_worker_niceness="0", RAY_USAGE_STATS_ENABLED="0")
_GIVEN = dict(os.environ)
_ROOT = Path(__file__).resolve().parent.parent

# Before Ray or anything else imports protobuf.
os.environ.update(PROCESS_ENVIRONMENT)
# Kept between runs: building takes seconds. A changed recipe has another revision and so another folder.
os.environ["KANDINSKY_BATCH_CACHE"] = str(_ROOT / ".pytest_cache" / "checkpoints")


#: Kinds of tests that take long, those that take longest first.
LONG = ("faults", "ray", "models")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first, so that no process is left with one at the end while the others have nothing to do."""
    items.sort(key=lambda item: next((i for i, kind in enumerate(LONG) if item.get_closest_marker(kind)), len(LONG)))


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """An S3 server with one empty bucket, `bucket`, that fsspec reaches in this process as `s3://`."""
    server = S3Server()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    yield server
    fsspec.filesystem("s3").clear_instance_cache()
    server.close()


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    return Once(tmp_path_factory)


@pytest.fixture(scope="session")
def clean_environment() -> dict[str, str]:
    """The environment of a person's shell, with the tests' checkpoint cache.

    A job started in it makes a Ray of its own, whatever cluster another test keeps on this machine meanwhile.
    """
    return {**_GIVEN, "RAY_ADDRESS": "local", "KANDINSKY_BATCH_CACHE": os.environ["KANDINSKY_BATCH_CACHE"]}


@pytest.fixture(scope="session")
def ray_cluster(clean_environment: dict[str, str]) -> Iterator[Cluster]:
    """A cluster that stays when drivers die, and that spares most jobs the start of one."""
    from ray.cluster_utils import Cluster

    with nodes_environment(clean_environment):
        size = {"num_cpus": 4, "object_store_memory": 200 << 20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=size)
        try:
            yield cluster
        finally:
            cluster.shutdown()


@pytest.fixture(scope="session")
def shared_environment(clean_environment: dict[str, str], ray_cluster: Cluster) -> dict[str, str]:
    """A person's shell where a Ray cluster is up: a job started in it joins that."""
    return {**clean_environment, "RAY_ADDRESS": ray_cluster.address}
