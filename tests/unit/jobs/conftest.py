"""A small finished output of all tasks, and a large one of 100,000 rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.unit.jobs.large_output import make_large_output

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A small finished output of all tasks, two of its eight rows failed."""
    shutil.copytree(ROOT / "tests" / "data" / "output_0_1" / "output", tmp_path / "output")
    return tmp_path / "output"


@pytest.fixture(scope="session")
def large_output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """100 shards of 1000 rows; the first and the last have their images."""
    return make_large_output(tmp_path_factory.mktemp("large"), 100, 1000, with_tar=(0, 99))
