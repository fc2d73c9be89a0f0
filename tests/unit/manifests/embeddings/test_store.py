"""The embedding store on real files and on memory:// storage: found as stored, or not at all."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import storage
from manifests.embeddings import key_index
from manifests.embeddings.key_index import merge_index
from manifests.embeddings.keys import Origin, key_of, vector_array, vectors
from manifests.embeddings.store import EmbeddingStore, part_bytes, part_url
from tests.unit.manifests.embedding_rows import ORIGIN, embeds, keys, question, rows

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def store() -> EmbeddingStore:
    return EmbeddingStore(f"memory://{uuid.uuid4().hex}")


def assert_found(store: EmbeddingStore, numbers: range, among: range) -> None:
    """Exactly these are found among those asked for, each with its own embeddings."""
    known = EmbeddingStore(store.url).get(keys(among), ORIGIN)
    assert [number for number, found in zip(among, known.found, strict=True) if found] == list(numbers)
    for place, number in enumerate(among):
        if known.found[place]:
            assert np.array_equal(known.image_embeds[place], embeds(number)[0])
            assert np.array_equal(known.negative_image_embeds[place], embeds(number)[1])
            assert known.prompt_truncated[place] == (number % 2 == 1)


def forget_index() -> None:
    """As in a new process: nothing of the index is remembered."""
    key_index._cache = key_index._Cache()


def test_what_was_stored_is_found_in_many_parts_and_after_merging(store: EmbeddingStore) -> None:
    for start in range(0, 3000, 600):
        store.add(rows(range(start, start + 600)))
    assert_found(store, range(3000), range(3000))
    assert_found(store, range(2900, 3000), range(2900, 3100))
    assert merge_index(store.url, store.index_files) is not None
    assert len(EmbeddingStore(store.url).index_files) == 1
    assert_found(store, range(3000), range(3100))


def test_an_empty_store_knows_nothing(store: EmbeddingStore) -> None:
    assert not store.has(keys(range(3))).any()
    assert_found(store, range(0), range(3))


def test_an_index_of_many_row_groups_is_merged_slice_by_slice(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_index, "GROUP_ROWS", 16)
    monkeypatch.setattr(key_index, "_MERGE_ROWS", 100)
    for start in (0, 300, 600):
        store.add(rows(range(start, start + 300)))
    merge_index(store.url, store.index_files)
    assert_found(store, range(900), range(1000))


def test_a_part_is_a_plain_table_for_pyarrow_and_pandas(tmp_path: Path) -> None:
    store = EmbeddingStore(str(tmp_path))
    path = part_url(store.url, store.add(rows(range(10))))
    table = pq.read_table(path)
    assert table.schema.field("image_embeds").type == pa.list_(pa.float16(), 24)
    assert table.schema.field("key").metadata[b"description"]
    assert table.column("prompt").to_pylist() == [f"prompt {i}" for i in range(10)]
    assert pandas.read_parquet(path)["image_embeds"][3].shape == (24,)


def test_every_part_of_a_question_changes_its_key() -> None:
    plain = question(1)
    others = {
        "prompt": "x",
        "negative_prompt": "",
        "condition_hashes": [["a", None, 1.0]],
        "seed": 2,
        "image_index": 1,
        "prior_steps": 26,
        "prior_guidance_scale": 4.5,
    }
    found = {key_of(ORIGIN, plain), *(key_of(ORIGIN, {**plain, name: value}) for name, value in others.items())}
    found |= {key_of(Origin("1" * 32, "float16", 24), plain), key_of(Origin("0" * 32, "float32", 24), plain)}
    assert len(found) == len(others) + 3


def test_the_same_rows_of_two_writers_are_one_part(store: EmbeddingStore) -> None:
    assert store.add(rows(range(50))) == EmbeddingStore(store.url).add(rows(range(50)))
    assert len(storage.list_names(storage.join(store.url, "parts"))) == 1
    store.add(rows(range(25, 75)))
    assert_found(store, range(75), range(100))


def test_flipped_bytes_are_never_taken_for_an_embedding(tmp_path: Path) -> None:
    store = EmbeddingStore(str(tmp_path))
    path = Path(part_url(store.url, store.add(rows(range(600)))))
    whole = path.read_bytes()
    dice = random.Random(1)
    lost = 0
    for _ in range(25):
        spoilt = bytearray(whole)
        spoilt[dice.randrange(len(spoilt))] ^= 1 << dice.randrange(8)
        path.write_bytes(spoilt)
        known = EmbeddingStore(store.url).get(keys(range(600)), ORIGIN)
        lost += int((~known.found).sum())
        for number in np.flatnonzero(known.found).tolist():
            assert np.array_equal(known.image_embeds[number], embeds(number)[0])
            assert np.array_equal(known.negative_image_embeds[number], embeds(number)[1])
    assert lost
    # Stored again it is in another place, and found beside the damaged row.
    store.add(rows(range(300, 500)))
    path.write_bytes(b"")
    assert_found(store, range(300, 500), range(600))


def test_a_damaged_row_is_found_in_its_second_copy(tmp_path: Path) -> None:
    store = EmbeddingStore(str(tmp_path))
    wrong = rows(range(10))
    swapped = vectors(wrong.column("image_embeds"))[::-1]
    name = store.add(wrong)
    table = pq.read_table(part_url(store.url, name))
    place = table.schema.get_field_index("image_embeds")
    table = table.set_column(place, table.schema.field(place), vector_array(np.ascontiguousarray(swapped)))
    Path(part_url(store.url, name)).write_bytes(part_bytes(table))
    assert_found(store, range(0), range(10))
    store.add(rows(range(3, 5)))
    assert_found(store, range(3, 5), range(10))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"half"])
def test_truncated_and_foreign_files_count_as_unknown(tmp_path: Path, content: bytes) -> None:
    store = EmbeddingStore(str(tmp_path))
    path = Path(part_url(store.url, store.add(rows(range(40)))))
    index = tmp_path / "index" / next(iter(store.index_files))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content == b"half" else content)
    assert_found(store, range(0), range(40))
    path.write_bytes(whole)
    index.write_bytes(index.read_bytes()[:-20] if content == b"half" else content)
    (tmp_path / "index" / f"{'f' * 32}-9.parquet").write_bytes(whole)
    forget_index()
    assert_found(store, range(0), range(40))
    store.add(rows(range(10)))
    assert_found(store, range(10), range(40))


def test_embeddings_of_another_width_or_type_are_not_trusted(store: EmbeddingStore) -> None:
    store.add(rows(range(4)))
    for other in (Origin(ORIGIN.checkpoint, "float32", 24), Origin(ORIGIN.checkpoint, "float16", 12)):
        assert not store.get(keys(range(4)), other).found.any()


def test_a_lookup_goes_on_in_the_part_that_another_was_merged_into(store: EmbeddingStore) -> None:
    name = store.add(rows(range(10)))
    late = EmbeddingStore(store.url)
    assert late.index_files
    store.add(rows(range(20)))
    merge_index(store.url, EmbeddingStore(store.url).index_files, without={name})
    storage.remove(part_url(store.url, name))
    known = late.get(keys(range(10)), ORIGIN)
    assert known.found.all()


WRITER = """
import sys
from manifests.embeddings.store import EmbeddingStore
from tests.unit.manifests.embedding_rows import rows
store = EmbeddingStore(sys.argv[1])
print("ready", flush=True)
for number in range(int(sys.argv[2]), 10_000):
    store.add(rows(range(number * 40, number * 40 + 40)))
    print(number, flush=True)
"""


def test_writers_killed_in_the_middle_leave_nothing_wrong(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # Both write the same parts, and die at different moments.
    writers = [subprocess.Popen([*command, "0"], env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for lines, writer in zip((6, 9), writers, strict=True):
        assert writer.stdout is not None
        for _ in range(lines):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    known = EmbeddingStore(str(tmp_path)).get(keys(range(400)), ORIGIN)
    assert known.found[:320].all()
    for number in np.flatnonzero(known.found).tolist():
        assert np.array_equal(known.image_embeds[number], embeds(number)[0])
