"""Starting a finished run of a million images again: one listing and the stats files, in little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import runfiles
from manifests.commit import FileStats, ShardStats, index_name, tar_name, write_stats
from manifests.config import RunConfig
from manifests.plan import plan

pytestmark = pytest.mark.faults

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 1_000_000

#: What the driver may take, with Ray's Python modules loaded.
MOST_BYTES = 600 << 20


def finished_million(folder: Path) -> RunConfig:
    """An output whose stats files say that it is done; its tars and indexes are not needed to know that."""
    numbers = pa.array(range(IMAGES), pa.int64())
    rows = {
        "id": numbers.cast(pa.string()),
        "task": pa.array(["text2img"] * IMAGES),
        "prompt": pa.array([f"a prompt of a fair length, number {number % 1000}" for number in range(IMAGES)]),
    }
    pq.write_table(pa.table(rows), folder / "m.parquet", row_group_size=100_000)
    config = RunConfig(manifest=(str(folder / "m.parquet"),), output=str(folder / "out"))
    planned = plan(config)
    runfiles.begin(config, planned)
    for number, shard in enumerate(planned.shards):
        files = [FileStats(name=name(number), bytes=1, sha256="0" * 64) for name in (tar_name, index_name)]
        stats = ShardStats(
            shard=number,
            task=shard.task,
            count=shard.rows,
            successes=shard.rows,
            failed=0,
            failed_by_status={},
            bytes=1,
            tar=files[0],
            parquet=files[1],
        )
        write_stats(config.output, stats)
    return config


def test_a_finished_million_has_nothing_to_do_within_the_memory_it_may_take(tmp_path: Path) -> None:
    config = finished_million(tmp_path)
    script = str(ROOT / "jobs" / "generate.py")
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, script, "--manifest", *config.manifest, "--output", config.output],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    told = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    print(f"{time.monotonic() - began:.1f} s, {used.ru_maxrss >> 10} MiB")
    assert process.returncode == 0, told
    assert "nothing to do" in told
    assert used.ru_maxrss << 10 < MOST_BYTES
    report = json.loads((tmp_path / "out" / "_run" / "run.json").read_text())
    assert (report["written"], report["made"]) == (IMAGES, 0)
