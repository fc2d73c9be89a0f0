"""What leaves the source of a line."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.engine.ledger import Ledger
from jobs.engine.pipeline import PlannedBatches, inputs, windows_left
from manifests.batch import Batch
from manifests.config import RunConfig
from manifests.planning.plan import plan
from workers.embeddings.lookup import remembered
from workers.fault_tolerance.guard import Guard


def test_texts_leave_the_source_as_the_stage_that_loads_inputs_would_pass_them_on(tmp_path: Path) -> None:
    prompts = ["a cat", "", "a dog", "a hat", "a bird"]
    pq.write_table(pa.table({"task": ["text2img"] * 5, "prompt": prompts}), tmp_path / "m.parquet")
    config = RunConfig(manifest=(str(tmp_path / "m.parquet"),), output="out", batch_size=2, embeddings="none")
    planned = plan(config)
    work = windows_left(planned, Ledger({n: shard.batches for n, shard in enumerate(planned.shards)}, (), {}))

    def blocks(ready: bool) -> list[pa.Table]:
        source = PlannedBatches(config, work, remembered(config, "cpu"), "pass", ready=ready)
        return [block for task in source.get_read_tasks(1) for block in task()]

    guard = Guard("inputs", "failed_to_load", 60, None)
    in_two_steps = [inputs(block, 224, guard, 60.0) for block in blocks(ready=False)]
    assert in_two_steps == blocks(ready=True)
    assert sum(Batch.from_block(block).samples.num_rows for block in in_two_steps) == len(prompts)
