"""Batches meet the store: what is known is put in, what is new is taken out, by what a row asks and nothing else."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.batch import Batch
from manifests.embeddings.keys import VECTORS, Origin, vectors
from manifests.embeddings.store import EmbeddingStore, part_url
from manifests.errors import RowError
from tests.unit.workers.sample_batches import make_batch
from workers.embeddings.lookup import Memory, filled, recall, recallable, to_embed
from workers.embeddings.storing import NEW_COLUMNS, only_new, store_new

ORIGIN = Origin("a" * 32, "float32", 8)


@pytest.fixture
def memory() -> Memory:
    return Memory(f"memory://{uuid.uuid4().hex}", ORIGIN)


def embedded(batch: Batch) -> Batch:
    """What the prior stage would make of a batch: vectors that tell the row."""
    rows = to_embed(batch)
    seeds = dict(zip(rows, batch.values("seed", rows), strict=True))
    for shift, name in enumerate(VECTORS):
        values = {row: np.full(8, seed + shift / 2, np.float32) for row, seed in seeds.items()}
        batch = filled(batch, name, ORIGIN.vector_type, values)
    batch = filled(batch, "prompt_truncated", pa.bool_(), {row: seed % 2 == 1 for row, seed in seeds.items()})
    return batch.add("embedding_truncated", pa.bool_(), {row: seed % 2 == 1 for row, seed in seeds.items()})


def remember(batches: list[Batch], memory: Memory) -> list[pa.Table]:
    """A whole first run: recall, embed, stage, store."""
    parts = [only_new(embedded(batch)).samples for batch in recall(batches, memory, "pass")]
    return list(store_new(parts, memory.url))


def cats(seeds: list[int], **more: Any) -> Batch:
    return make_batch("text2img", [{"seed": seed, "prompt": f"cat {seed}", **more} for seed in seeds])


def test_what_one_run_stored_the_next_one_has(memory: Memory) -> None:
    first = cats([1, 2, 3])
    (left,) = remember([first], memory)
    assert not set(NEW_COLUMNS) & set(left.column_names)
    # Another size and another task of the same prompts and seeds; one row is new, one differs in its prompt.
    picture = {"bytes": b"", "path": None}
    rows = [{"seed": seed, "prompt": f"cat {seed}", "image": picture} for seed in (3, 4, 1)]
    rows.append({"seed": 2, "prompt": "dog"})
    (again,) = recall([make_batch("img2img", rows, size=(128, 64))], memory, "pass")
    assert to_embed(again) == [1, 3]
    known = vectors(again.samples.column("image_embeds").take([0, 2]))
    assert np.array_equal(known[:, 0], [3, 1])
    assert np.array_equal(vectors(again.samples.column("negative_image_embeds").take([0, 2]))[:, 0], [3.5, 1.5])
    assert again.values("prompt_truncated", [0, 2]) == [True, True]
    assert [key is None for key in again.samples.column("embedding_key").to_pylist()] == [True, False, True, False]


def test_the_index_is_believed_or_the_embeddings_are_read(tmp_path: Path) -> None:
    memory = Memory(str(tmp_path), ORIGIN)
    remember([cats([1, 2])], memory)
    (part,) = (tmp_path / "parts").iterdir()
    part.write_bytes(b"")
    assert [left for _, left in recallable([cats([1, 2])], memory, verify=False)] == [0]
    assert [left for _, left in recallable([cats([1, 2])], memory, verify=True)] == [2]


def test_only_what_is_new_is_stored_again(memory: Memory) -> None:
    remember([cats([1, 2])], memory)
    remember([cats([1, 2])], memory)
    remember([cats([2, 3])], memory)
    store = EmbeddingStore(memory.url)
    assert sorted(store.index_files.values()) == [1, 2]


def test_a_stored_row_says_what_it_is(memory: Memory, tmp_path: Path) -> None:
    (batch,) = recall(
        [make_batch("text2img", [{"seed": 7, "prompt": "a cat", "negative_prompt": "bad"}])], memory, "pass"
    )
    parts = only_new(embedded(batch)).samples
    folder = str(tmp_path)
    list(store_new([parts], folder))
    (path,) = (tmp_path / "parts").iterdir()
    (row,) = pq.read_table(path).to_pylist()
    assert (row["prompt"], row["negative_prompt"], row["seed"], row["prior_steps"]) == ("a cat", "bad", 7, 5)
    assert row["checkpoint"] == ORIGIN.checkpoint
    assert row["prompt_truncated"] is True
    assert str(path) == part_url(folder, path.stem)


def test_interpolations_are_known_by_the_content_of_their_images(memory: Memory, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    text = {"text": "a cat", "image": None, "weight": 0.5}

    def mix(image: dict[str, Any], prompt: str = "") -> Batch:
        sources = [text, {"text": None, "image": image, "weight": 0.5}]
        return make_batch("interpolate", [{"seed": 5, "prompt": prompt, "condition_sources": sources}])

    by_path = {"bytes": None, "path": str(tmp_path / "a.png")}
    remember([mix(by_path)], memory)
    inline = {"bytes": b"picture", "path": None}
    assert [left for _, left in recallable([mix(by_path), mix(inline, "x")], memory, verify=False)] == [0, 0]
    assert [left for _, left in recallable([mix({"bytes": b"other", "path": None})], memory, verify=False)] == [1]
    missing = mix({"bytes": None, "path": str(tmp_path / "none.png")})
    assert [left for _, left in recallable([missing], memory, verify=False)] == [1]
    (passed,) = recall([missing], memory, "pass")
    assert passed.samples.column("embedding_key").null_count == 1


def test_rows_without_an_embedding_are_passed_on_left_out_or_failed(memory: Memory) -> None:
    remember([cats([1])], memory)
    batches = [cats([1, 2]), cats([1])]
    assert len(list(recall(batches, memory, "pass"))) == 2
    assert [batch.samples.num_rows for batch in recall(batches, memory, "leave out")] == [1]
    failed, whole = recall(batches, memory, "fail")
    assert whole.pending == [0]
    assert failed.values("status", [0, 1]) == ["success", "failed_to_embed"]
    assert "--stage prior" in failed.values("error_message", [1])[0]
    assert memory.url in failed.values("error_message", [1])[0]


def test_failed_and_rejected_rows_need_no_prior_and_are_never_stored(memory: Memory) -> None:
    failed = {"status": "failed_to_validate", "error_message": "x"}
    rejected = Batch(0, 1, None, cats([9]).samples)
    spoilt = make_batch("text2img", [{"seed": 1}, {"seed": 2, **failed}])
    assert [left for _, left in recallable([spoilt, rejected], memory, verify=False)] == [1, 0]
    seen, untouched = recall([spoilt, rejected], memory, "pass")
    assert to_embed(seen) == [0]
    assert untouched is rejected
    raised = seen.fail({0: RowError("failed_to_embed", "y")})
    assert not set(VECTORS) & set(only_new(raised).samples.column_names)


def test_a_part_of_an_older_start_without_these_columns_stores_nothing(memory: Memory) -> None:
    batch = cats([1])
    parts = list(store_new([batch.samples], memory.url))
    assert parts[0].equals(batch.samples)
    (recalled,) = recall([batch], memory, "pass")
    list(store_new([only_new(embedded(recalled)).samples], None))
    assert not EmbeddingStore(memory.url).index_files


def test_a_large_shard_is_stored_in_several_parts(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.embeddings.storing._PART_BYTES", 300)
    remember([cats([1, 2]), cats([3, 4]), cats([5, 6])], memory)
    files = EmbeddingStore(memory.url).index_files
    assert sum(files.values()) == 6
    assert len(files) > 1
    assert json.dumps([left for _, left in recallable([cats([1, 2, 3, 4, 5, 6])], memory, verify=False)]) == "[0]"
