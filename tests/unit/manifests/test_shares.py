"""Shares of a plan: every window in exactly one, numbers as in the whole."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import sources
from manifests.config import RunConfig
from manifests.plan import plan, share_of


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_shares_are_the_plan_cut_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(sources, "WINDOW_ROWS", 10)
    pq.write_table(pa.table({"task": ["text2img"] * 75, "prompt": ["x"] * 75}), tmp_path / "m.parquet")
    planned = plan(RunConfig(manifest=(str(tmp_path / "m.parquet"),), output="out", shard_size=5))
    shares = [share_of(planned, (index, count)) for index in range(count)]
    assert [window for share in shares for window in share.windows] == list(planned.windows)
    assert all(share.shards == planned.shards for share in shares)
    sizes = [len(share.windows) for share in shares]
    assert max(sizes) - min(sizes) <= 1
