"""Blocks that hold several batches: packed, worked on and unpacked, each batch stays what it was."""

from __future__ import annotations

import pyarrow as pa

from manifests.batch import Batch, Bucket, on_each, pack, unpack

BUCKET = Bucket(
    task="text2img",
    height=64,
    width=64,
    steps=2,
    guidance_scale=4.0,
    prior_steps=2,
    prior_guidance_scale=4.0,
    strength=None,
    has_negative=False,
)


def blocks(count: int) -> list[pa.Table]:
    """One batch each, of different sizes, shapes and columns, as the rejected rows are."""
    found = []
    for index in range(count):
        bucket = None if index == 1 else BUCKET.model_copy(update={"width": 64 + 64 * index})
        samples = pa.table(
            {"id": [f"{index}-{row}" for row in range(index + 1)], f"column {index}": [0.5] * (index + 1)}
        )
        found.append(Batch(7, index, bucket, samples, {"prior": 1.5}).to_block())
    return found


def test_a_pack_is_one_row_that_holds_every_batch() -> None:
    given = blocks(4)
    packed = pack(given)
    assert packed.num_rows == 1
    found = [Batch.from_block(each) for each in unpack(packed)]
    for batch, block in zip(found, given, strict=True):
        expected = Batch.from_block(block)
        assert (batch.shard, batch.index, batch.bucket, batch.seconds) == (
            expected.shard,
            expected.index,
            expected.bucket,
            expected.seconds,
        )
        assert batch.samples.equals(expected.samples)


def test_packs_and_plain_batches_of_several_rows_come_apart_alike() -> None:
    plain, packs = pa.concat_tables(blocks(4)), pa.concat_tables([pack(blocks(4)[:3]), pack(blocks(4)[3:])])
    assert [Batch.from_block(each).index for each in unpack(plain)] == [0, 1, 2, 3]
    assert [Batch.from_block(each).index for each in unpack(packs)] == [0, 1, 2, 3]


def test_a_stage_works_on_each_batch_and_a_pack_stays_one() -> None:
    def mark(block: pa.Table) -> pa.Table:
        return Batch.from_block(block).took("stage", 2.0).to_block()

    packed, plain = on_each(pack(blocks(3)), mark), on_each(blocks(1)[0], mark)
    assert (packed.num_rows, plain.num_rows) == (1, 1)
    assert [Batch.from_block(each).seconds["stage"] for each in unpack(packed)] == [2.0] * 3
    assert Batch.from_block(plain).seconds["stage"] == 2.0
