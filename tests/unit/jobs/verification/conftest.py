"""One finished run for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests.config import RunConfig
from tests.unit import finished_run


@pytest.fixture(params=[False, True], ids=["images", "scores and embeddings"])
def config(tmp_path: Path, request: pytest.FixtureRequest) -> RunConfig:
    made = finished_run.make_config(tmp_path, scores="all" if request.param else "none", keep_clip=request.param)
    finished_run.run(made)
    return made
