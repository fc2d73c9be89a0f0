"""Pruning loses nothing that is right, and drops what is not."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from manifests import storage
from manifests.embeddings import compaction
from manifests.embeddings.compaction import look, part_names, prune
from manifests.embeddings.keys import Origin
from manifests.embeddings.store import EmbeddingStore, part_url
from tests.unit.manifests.embedding_rows import ORIGIN, embeds, keys, rows

OTHER = Origin("b" * 32, "float32", 12)


@pytest.fixture
def store() -> EmbeddingStore:
    return EmbeddingStore(f"memory://{uuid.uuid4().hex}")


def found(store: EmbeddingStore, numbers: range, origin: Origin = ORIGIN) -> list[int]:
    known = EmbeddingStore(store.url).get(keys(numbers, origin), origin)
    for place, number in enumerate(numbers):
        if known.found[place]:
            assert np.array_equal(known.image_embeds[place], embeds(number, origin)[0])
    return [number for number, there in zip(numbers, known.found, strict=True) if there]


def test_small_parts_become_one_with_one_index_and_pruning_again_changes_nothing(store: EmbeddingStore) -> None:
    for start in range(0, 300, 50):
        store.add(rows(range(start, start + 60)))
    store.add(rows(range(20), OTHER))
    done = prune(store.url)
    assert (done.parts_before, done.parts_after, done.rows, done.doubled) == (7, 2, 330, 50)
    assert len(EmbeddingStore(store.url).index_files) == 1
    assert found(store, range(400)) == list(range(310))
    assert found(store, range(30), OTHER) == list(range(20))
    left = part_names(store.url)
    again = prune(store.url)
    assert (again.parts_after, again.rows, again.doubled) == (2, 330, 0)
    assert part_names(store.url) == left


def test_large_parts_are_left_alone_and_read_only_to_check_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "SMALL_PART_ROWS", 100)
    store = EmbeddingStore(str(tmp_path))
    name = store.add(rows(range(600)))
    store.add(rows(range(600, 650)))
    path = Path(part_url(store.url, name))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    assert prune(store.url).damaged == 0
    lost = 650 - len(found(store, range(650)))
    assert lost > 0
    done = prune(store.url, check=True)
    assert (done.damaged, done.rows) == (lost, 650 - lost)
    # Now the index does not promise what is not there.
    assert EmbeddingStore(store.url).has(keys(range(650))).sum() == 650 - lost


def test_what_other_checkpoints_made_can_be_dropped(store: EmbeddingStore) -> None:
    store.add(rows(range(10)))
    store.add(rows(range(10), OTHER))
    done = prune(store.url, keep=[OTHER.checkpoint])
    assert (done.unwanted, done.rows) == (10, 10)
    assert found(store, range(10)) == []
    assert found(store, range(10), OTHER) == list(range(10))


def test_a_part_that_no_index_covers_is_found_again_and_an_unreadable_one_goes(store: EmbeddingStore) -> None:
    store.add(rows(range(10)))
    for name in EmbeddingStore(store.url).index_files:
        storage.remove(storage.join(store.url, "index", name))
    storage.write_atomic(part_url(store.url, "c" * 32), b"PAR1 of something else")
    storage.write_atomic(storage.join(store.url, "parts", "notes.txt"), b"not ours")
    assert found(store, range(10)) == []
    assert [info and sum(info.rows.values()) for info in look(store.url, part_names(store.url))] in (
        [10, None],
        [None, 10],
    )
    done = prune(store.url)
    assert (done.rows, done.unreadable) == (10, 1)
    assert found(store, range(10)) == list(range(10))
    assert storage.exists(storage.join(store.url, "parts", "notes.txt"))


def test_a_prune_killed_before_the_old_files_went_has_lost_nothing(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for start in (0, 10, 20):
        store.add(rows(range(start, start + 10)))

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "remove", die)
        with pytest.raises(KeyboardInterrupt):
            prune(store.url)
    assert found(store, range(40)) == list(range(30))
    assert prune(store.url).rows == 30
    assert found(store, range(40)) == list(range(30))


def test_a_writer_beside_a_prune_is_not_lost(store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add(rows(range(10)))
    add = EmbeddingStore.add

    def add_beside(self: EmbeddingStore, table: pa.Table) -> str:
        monkeypatch.setattr(EmbeddingStore, "add", add)
        EmbeddingStore(store.url).add(rows(range(20, 30)))
        return add(self, table)

    monkeypatch.setattr(EmbeddingStore, "add", add_beside)
    prune(store.url)
    assert found(store, range(40)) == [*range(10), *range(20, 30)]
