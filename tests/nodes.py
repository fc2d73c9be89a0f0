"""How a test's Ray nodes are started: patiently, in the environment that they give their workers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def nodes_environment(environment: Mapping[str, str]) -> Iterator[None]:
    """This process has this environment meanwhile, joins no Ray by it, and its workers find the source tree.

    Nodes that are started meanwhile may take their time, and leave Ray's own ports to those that are started beside.
    """
    # Here: not every test needs Ray.
    from ray._private import node

    from jobs.engine.connection import PatientNode

    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(_ROOT), environment.get("PYTHONPATH")])))
        patch.setattr(node, "Node", PatientNode)
        yield
