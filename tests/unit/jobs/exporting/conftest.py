"""One output that all tests of an export read."""

from __future__ import annotations

import pytest

from tests.once import Once
from tests.unit.jobs.exporting.outputs import make_output


@pytest.fixture(scope="session")
def output(once: Once) -> str:
    """Never written to."""
    return str(once("exported", make_output) / "out")
