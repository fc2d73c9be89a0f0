"""For all tests: one cache for the demo checkpoint, the environment that MindSpore needs, and one Ray for many jobs.

Processes of the job itself must set that environment themselves; `clean_environment` gives what a person's shell has.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.nodes import nodes_environment
from workers.device.device import PROCESS_ENVIRONMENT

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

# The same examples in every run: what fails here has been broken by a change. `--hypothesis-profile=random` looks
# further.
settings.register_profile("same", derandomize=True)
settings.register_profile("random", derandomize=False)
settings.load_profile("same")

_GIVEN = dict(os.environ)
_ROOT = Path(__file__).resolve().parent.parent

# Before Ray or anything else imports protobuf.
os.environ.update(PROCESS_ENVIRONMENT)
# Kept between runs: building takes seconds. A changed recipe has another revision and so another folder.
os.environ["KANDINSKY_BATCH_CACHE"] = str(_ROOT / ".pytest_cache" / "checkpoints")


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
