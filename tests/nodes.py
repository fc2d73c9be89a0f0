"""How tests start Ray nodes: patiently, in the environment that they give their workers, at ports of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

_ROOT = Path(__file__).resolve().parent.parent

#: Seconds until all nodes of a cluster know of one that has come, or gone.
START_S = 300.0

#: What nobody looks at: statistics of the processes of a node, made every five seconds of each.
NO_STATISTICS = {"REPORTER_UPDATE_INTERVAL_MS": "3600000"}


@contextmanager
def nodes_environment(
    environment: Mapping[str, str], path: Path | None = None, dashboard: bool = False
) -> Iterator[None]:
    """This process has this environment meanwhile, joins no Ray by it, and its workers find the source tree.

    Nodes that are started meanwhile may take their time, and leave Ray's own ports to those that are started beside.

    Args:
        path: where workers look for modules instead.
        dashboard: with all processes of a cluster that people share, where else there are those that a job needs.
    """
    # Here: not every test needs Ray.
    from ray._private import node

    from jobs.engine.connection import OwnHead, PatientNode

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**({} if dashboard else NO_STATISTICS), **environment}.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        places = [str(_ROOT), environment.get("PYTHONPATH")] if path is None else [str(path)]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, places)))
        patch.setattr(node, "Node", PatientNode if dashboard else OwnHead)
        yield


@contextmanager
def ray_nodes(environment: Mapping[str, str], *nodes: Mapping[str, Any], path: Path | None = None) -> Iterator[Cluster]:
    """A Ray cluster of nodes on this machine.

    Args:
        environment, path: of the nodes and their workers, as `nodes_environment` has them.
        nodes: what each has, as `Cluster.add_node` takes it; the first is the head.
    """
    from ray.cluster_utils import Cluster

    head, *others = nodes
    # Its processes have inherited it by then; this one shall be as it was for what comes after.
    with nodes_environment(environment, path, dashboard=head.get("include_dashboard", False)):
        cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **head})
    try:
        for node in others:
            add_node(cluster, environment, node, path)
        yield cluster
    finally:
        cluster.shutdown()


def add_node(
    cluster: Cluster, environment: Mapping[str, str], node: Mapping[str, Any], path: Path | None = None
) -> None:
    """One more, when all others are where they should be."""
    with nodes_environment(environment, path):
        cluster.add_node(**node)
    cluster.wait_for_nodes(START_S)


def lives(pid: int) -> bool:
    """A process that has ended and that nobody has asked for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
