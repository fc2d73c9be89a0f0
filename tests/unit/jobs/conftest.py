"""A small finished output of all tasks, and a large one of 100,000 rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.once import Once
from tests.unit.jobs.large_output import make_large_output
from tests.unit.jobs.started import Start, starting

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A small finished output of all tasks, two of its eight rows failed."""
    shutil.copytree(ROOT / "tests" / "data" / "output_0_1" / "output", tmp_path / "output")
    return tmp_path / "output"


@pytest.fixture
def start(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts a script in this process."""
    return starting(capsys, monkeypatch)


@pytest.fixture(scope="session")
def large_output(once: Once) -> str:
    """100 shards of 1000 rows; the first and the last have their images. Never written to."""
    made = once("large output", lambda folder: make_large_output(folder, 100, 1000, with_tar=(0, 99)))
    return str(made / "out")
