"""`--dedupe`: equal requests are made once, and every id has its image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.batch import Batch
from manifests.config import RunConfig
from manifests.errors import RowError
from manifests.planning.plan import plan, window_batches
from manifests.requests import files


def config(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> RunConfig:
    usual = {"task": "text2img", "prompt": "x", "num_images": 1, "seed": None, "image": None}
    path = folder / "m.parquet"
    pq.write_table(pa.Table.from_pylist([{"id": f"r{n}", **usual, **row} for n, row in enumerate(rows)]), path)
    return RunConfig(manifest=(str(path),), output=str(folder / "out"), **{"dedupe": True, **settings})


def batches_of(job: RunConfig) -> list[Batch]:
    return [batch for window in plan(job).windows for batch in window_batches(job, window)]


def copies(batch: Batch) -> dict[str, str]:
    """Id of each copy -> id of its original."""
    rows = batch.samples.to_pylist()
    ids = {row["key"]: row["id"] for row in rows}
    return {row["id"]: ids[row["same_as"]] for row in rows if row.get("same_as")}


def test_equal_rows_lie_in_the_batch_of_the_first(tmp_path: Path) -> None:
    rows = [{"seed": n % 5, "prompt": "even" if n % 2 else "odd"} for n in range(30)]
    job = config(tmp_path, rows, batch_size=4)
    planned = plan(job)
    [count] = planned.buckets.values()
    assert (count.samples, count.made, count.batches) == (30, 10, 3)
    batches = batches_of(job)
    assert [(len(batch.pending), batch.samples.num_rows) for batch in batches] == [(4, 12), (4, 12), (2, 6)]
    found = {key: value for batch in batches for key, value in copies(batch).items()}
    assert found == {f"r{n}": f"r{n % 10}" for n in range(10, 30)}


def test_only_rows_that_give_the_same_seed_and_content_are_equal(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"seed": 1},
        {"seed": 2},
        {"seed": 1, "prompt": "y"},
        {"seed": 1, "num_images": 2},
        {"seed": None},
        {"seed": None},
        {"seed": 1, "task": "img2img", "image": {"bytes": b"a", "path": None}},
        {"seed": 1, "task": "img2img", "image": {"bytes": b"b", "path": None}},
        {"seed": 1, "task": "img2img", "image": {"bytes": None, "path": "a.png"}},
        {"seed": 1},
        {"seed": 1, "task": "img2img", "image": {"bytes": None, "path": "a.png"}},
        {"seed": 1, "num_images": 2},
    ]
    found = {key: value for batch in batches_of(config(tmp_path, rows)) for key, value in copies(batch).items()}
    assert found == {"r9": "r0", "r10": "r8", "r11": "r3"}


def test_a_rejected_row_is_nobodys_original(tmp_path: Path) -> None:
    rows = [{"id": "a", "seed": 1}, {"id": "b", "seed": 2}, {"id": "a", "seed": 3}, {"id": "c", "seed": 3}]
    job = config(tmp_path, [*rows, {"id": "d", "seed": 3}])
    assert plan(job).rejected == 1
    assert {key: value for batch in batches_of(job) for key, value in copies(batch).items()} == {"d": "c"}


def test_rows_further_apart_than_a_window_are_made_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "DEDUPE_WINDOW_ROWS", 3)
    job = config(tmp_path, [{"seed": n} for n in (1, 1, 2, 1, 2, 2)], shard_size=2)
    assert sum(count.made for count in plan(job).buckets.values()) == 4


def test_without_the_option_nothing_is_copied_and_the_plan_is_another(tmp_path: Path) -> None:
    job = config(tmp_path, [{"seed": 1}] * 3)
    plain = job.model_copy(update={"dedupe": False})
    assert [batch.pending for batch in batches_of(plain)] == [[0, 1, 2]]
    assert plan(plain).fingerprint != plan(job).fingerprint
    assert [s["id"] for b in batches_of(plain) for s in b.samples.to_pylist()] == ["r0", "r1", "r2"]


def test_what_becomes_of_the_original_becomes_of_its_copies(tmp_path: Path) -> None:
    [batch] = batches_of(config(tmp_path, [{"seed": n} for n in (1, 2, 1, 2, 3)]))
    # In the order of the plan: r0, r2, r1, r3, r4.
    assert batch.pending == [0, 2, 4]
    made = batch.add("pixels", pa.large_binary(), {0: b"one", 4: b"three"})
    made = made.add("prompt_truncated", pa.bool_(), {0: True})
    done = made.fail({2: RowError("failed_to_generate", "sick")}).with_copies()
    assert "same_as" not in done.samples.column_names
    assert done.samples.column("id").to_pylist() == ["r0", "r2", "r1", "r3", "r4"]
    assert done.samples.column("pixels").to_pylist() == [b"one", b"one", None, None, b"three"]
    assert done.samples.column("prompt_truncated").to_pylist() == [True, True, None, None, None]
    assert done.samples.column("error_message").to_pylist() == [None, None, "sick", "sick", None]
    assert done.pending == [0, 1, 4]


def test_a_copy_without_its_original_is_made(tmp_path: Path) -> None:
    [batch] = batches_of(config(tmp_path, [{"seed": 1}] * 2))
    alone = Batch(batch.shard, batch.index, batch.bucket, batch.samples.slice(1))
    assert alone.pending == [0]
    assert alone.with_copies().samples.column("id").to_pylist() == ["r1"]


def test_after_so_many_copies_an_image_is_computed_anew(tmp_path: Path) -> None:
    job = config(tmp_path, [{"seed": 7}] * 40, batch_size=2)
    [count] = plan(job).buckets.values()
    assert (count.samples, count.made, count.batches) == (40, 3, 2)
    # A batch never holds the pixels of more images than that.
    assert [(len(batch.pending), batch.samples.num_rows) for batch in batches_of(job)] == [(2, 32), (1, 8)]
