"""One output that all tests of an export read."""

from __future__ import annotations

import pytest

from tests.unit.jobs.exporting.outputs import make_output


@pytest.fixture(scope="session")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Never written to."""
    return make_output(tmp_path_factory.mktemp("exported"))
