"""What leaves the source of a line."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.engine.ledger import Ledger
from jobs.engine.pipeline import OnEach, PlannedBatches, inputs, windows_left
from manifests.batch import Batch, unpack
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


class Tagger:
    """A stage of a pool."""

    def __init__(self, tag: float) -> None:
        self._tag = tag

    def __call__(self, block: pa.Table) -> pa.Table:
        return Batch.from_block(block).took("tag", self._tag).to_block()


def test_batches_that_travel_together_come_out_as_those_that_travel_alone(tmp_path: Path) -> None:
    conditions = [[{"text": "a", "weight": 0.5}, {"text": "b", "weight": 0.5}]] * 3
    rows = {
        "task": ["text2img"] * 4 + ["interpolate"] * 3,
        "prompt": ["a cat"] * 4 + [None] * 3,
        "conditions": [None] * 4 + conditions,
    }
    pq.write_table(pa.table(rows), tmp_path / "m.parquet")
    config = RunConfig(manifest=(str(tmp_path / "m.parquet"),), output="out", batch_size=2, embeddings="none")
    planned = plan(config)
    work = windows_left(planned, Ledger({n: shard.batches for n, shard in enumerate(planned.shards)}, (), {}))
    guard = Guard("inputs", "failed_to_load", 60, None)

    def made(together: int | None) -> list[pa.Table]:
        source = PlannedBatches(config, work, remembered(config, "cpu"), "pass", together=together)
        stage = OnEach(Tagger, 1.5)
        blocks = [block for task in source.get_read_tasks(1) for block in task()]
        assert all(block.num_rows == 1 for block in blocks)
        loaded = [inputs(block, 224, guard, 60.0, images=False) for block in blocks]
        return [each for block in loaded for each in unpack(stage(block))]

    def content(blocks: list[pa.Table]) -> list[tuple[int, int, pa.Table]]:
        batches = [Batch.from_block(block) for block in blocks]
        assert all(batch.seconds["tag"] == 1.5 for batch in batches)
        return [(batch.shard, batch.index, batch.samples) for batch in batches]

    alone = content(made(None))
    assert len(alone) == 4
    assert content(made(1)) == content(made(3)) == alone
