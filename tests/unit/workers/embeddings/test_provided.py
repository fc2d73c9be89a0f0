"""Embeddings that rows bring along: any list of numbers of the right width, or a reason."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.batch import Batch
from manifests.config import RunConfig
from manifests.embeddings.keys import Origin, vectors
from manifests.embeddings.store import EmbeddingStore
from manifests.errors import UsageError
from manifests.planning.plan import plan
from tests.unit.workers.sample_batches import make_batch
from workers.embeddings.lookup import Memory, recall, recallable, to_embed
from workers.embeddings.provided import adopt

ORIGIN = Origin("a" * 32, "float16", 3)


def given(kind: pa.DataType | None = None, **columns: list[Any]) -> Batch:
    batch = make_batch("text2img", [{"seed": i} for i in range(len(next(iter(columns.values()))))])
    for name, values in columns.items():
        batch = Batch(0, 0, batch.bucket, batch.samples.append_column(name, pa.array(values, kind)))
    return batch


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float64()),
        pa.list_(pa.float32(), 3),
        pa.large_list(pa.int8()),
        pa.list_(pa.float16()),
        pa.list_(pa.int64(), 3),
    ],
    ids=str,
)
def test_any_list_of_numbers_becomes_the_priors_type(kind: pa.DataType) -> None:
    numbers: list[Any] = [[1, 2, 3], None, [4, 5, 6]]
    if pa.types.is_float16(kind.value_type):
        numbers = [row and [np.float16(value) for value in row] for row in numbers]
    batch = adopt(given(kind, image_embeds=numbers), ORIGIN)
    column = batch.samples.column("image_embeds")
    assert column.type == ORIGIN.vector_type
    assert column.null_count == 1
    assert vectors(column.drop_null()).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert batch.samples.column("negative_image_embeds").null_count == 3
    assert batch.pending == [0, 1, 2]


def test_wrong_embeddings_fail_their_rows_with_the_reason() -> None:
    rows = [[1.0, 2.0], [1.0, float("nan"), 2.0], [1.0, None, 2.0], [1.0, 2.0, 1e6], [1.0, 2.0, 3.0], []]
    batch = adopt(given(negative_image_embeds=rows), ORIGIN)
    status = batch.samples.column("status").to_pylist()
    assert status == [*["failed_to_load"] * 4, "success", "failed_to_load"]
    messages = batch.samples.column("error_message").to_pylist()
    assert messages[0] == ("negative_image_embeds: has 2 numbers, but this checkpoint's embeddings have 3; use such")
    assert all("every one must be finite" in message for message in messages[1:4])
    assert "beyond float16" in messages[3]
    assert "has 0 numbers" in messages[5]


@pytest.mark.parametrize("values", [["text", None], [["a"], None], [1.5, None], [[[1.0]], None]], ids=str)
def test_a_column_of_anything_else_fails_the_rows_that_have_a_value(values: list[Any]) -> None:
    batch = adopt(given(image_embeds=values), ORIGIN)
    assert batch.samples.column("status").to_pylist() == ["failed_to_load", "success"]
    assert "not a list of numbers; use a list of 3 floats" in batch.values("error_message", [0])[0]


@pytest.mark.parametrize("stored", [True, False])
def test_rows_that_bring_both_embeddings_need_no_prior_and_those_with_one_do(stored: bool) -> None:
    url = f"memory://{uuid.uuid4().hex}" if stored else None
    both = [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], None]
    batch = given(image_embeds=both, negative_image_embeds=[both[0], None, None])
    memory = Memory(url, ORIGIN)
    assert [left for _, left in recallable([batch], memory, verify=False)] == [2]
    (passed,) = recall([batch], memory, "pass")
    assert to_embed(passed) == [1, 2]
    if url is not None:
        assert [key is None for key in passed.samples.column("embedding_key").to_pylist()] == [True, True, False]
        assert not EmbeddingStore(url).index_files
    assert list(recall([batch], memory, "leave out")) == []
    (failed,) = recall([batch], memory, "fail")
    assert failed.pending == [0]
    assert "must give both" in failed.values("error_message", [1])[0]


def test_deduplication_does_not_take_rows_with_other_embeddings_for_equal(tmp_path: Path) -> None:
    manifest = tmp_path / "m.parquet"
    pq.write_table(pa.table({"prompt": ["a", "a"], "image_embeds": [[1.0], [2.0]]}), manifest)
    with pytest.raises(UsageError, match="rows that bring embeddings are not told apart"):
        plan(RunConfig(manifest=(str(manifest),), output="o", dedupe=True))
