"""A plan made by all of the cluster is the plan that the driver would have made alone."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.engine.cluster import cluster
from jobs.run import parallel_planning
from manifests.config import RunConfig
from manifests.errors import ManifestError
from manifests.planning.plan import Plan, plan
from manifests.requests import files

pytestmark = pytest.mark.ray


def known(planned: Plan) -> tuple[object, ...]:
    repeats = [(w.repeats.rows.tolist(), w.repeats.numbers.tolist(), w.repeats.own.tolist()) for w in planned.windows]
    return planned.fingerprint, planned.shards, planned.buckets, planned.problems, planned.requests_by_task, repeats


def test_tasks_on_ray_make_the_same_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_environment: dict[str, str]
) -> None:
    rows = 4_000
    for name in ("a", "b"):
        table = pa.table(
            {
                "id": [None if row % 3 else f"r{row % 2000}" for row in range(rows)],
                "task": ["text2img"] * rows,
                "prompt": [f"prompt {row % 50}" for row in range(rows)],
                "height": [512 + 64 * (row % 3) if row % 100 else 1 for row in range(rows)],
            }
        )
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=500)
    config = RunConfig(manifest=(str(tmp_path),), output=str(tmp_path / "out"))
    monkeypatch.setattr(files, "WINDOW_ROWS", 150)
    monkeypatch.setattr(files, "STRETCH_ROWS", 400)
    alone = plan(config, (4_100,))
    assert alone.problems
    monkeypatch.setattr(parallel_planning, "PARALLEL_ROWS", 0)
    monkeypatch.setenv("RAY_ADDRESS", shared_environment["RAY_ADDRESS"])
    # What connecting sets ends with the test.
    for name in ("PYTHONPATH", "RAY_AUTH_MODE", "RAY_BACKEND_LOG_LEVEL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    with cluster():
        assert known(parallel_planning.plan_job(config, (4_100,))) == known(alone)
        whole = files.open_manifest(config.manifest)
        monkeypatch.setattr(files, "open_manifest", lambda locations: whole)
        (tmp_path / "b.parquet").unlink()
        with pytest.raises(ManifestError, match="no such file"):
            parallel_planning.plan_job(config)
