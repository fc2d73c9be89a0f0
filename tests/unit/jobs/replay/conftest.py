"""A finished run of all tasks with inputs in files and inline, in batches of two; its pixels are made up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from manifests.config import RunConfig
from tests.unit import finished_run
from tests.unit.replay_rows import replay_rows


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """What was run; its rows `broken` and `wrong` failed."""
    folder = tmp_path_factory.mktemp("finished")
    Image.new("RGB", (80, 70), "olive").save(folder / "photo.png")
    made = finished_run.make_config(folder, replay_rows(), steps=4, prior_steps=2, shard_size=6)
    finished_run.run(made, broken=["broken"])
    return made


@pytest.fixture
def config(finished: RunConfig, tmp_path: Path) -> RunConfig:
    """The same of a copy, in which a test may do what it likes."""
    shutil.copytree(Path(finished.output).parent, tmp_path, dirs_exist_ok=True)
    places = {"manifest": (str(tmp_path / "m.parquet"),), "output": str(tmp_path / "out")}
    moved = finished.model_copy(update=places)
    (tmp_path / "out" / "_run" / "config.json").write_text(json.dumps(moved.model_dump(mode="json")))
    return moved
