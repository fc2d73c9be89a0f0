"""Shares of a plan: every shard in exactly one, numbers as in the whole, none without work where there is enough."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.config import RunConfig
from manifests.planning.plan import plan, share_of
from manifests.requests import files


@pytest.mark.parametrize("window_rows", [10, 10_000])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_shares_are_all_shards_dealt_out_evenly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, window_rows: int
) -> None:
    monkeypatch.setattr(files, "WINDOW_ROWS", window_rows)
    pq.write_table(pa.table({"task": ["text2img"] * 75, "prompt": ["x"] * 75}), tmp_path / "m.parquet")
    planned = plan(RunConfig(manifest=(str(tmp_path / "m.parquet"),), output="out", shard_size=5))
    shares = [share_of(planned, (index, count)) for index in range(count)]
    assert sorted(shard for share in shares for shard in share) == list(range(len(planned.shards)))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
