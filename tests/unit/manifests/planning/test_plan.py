"""The plan: every request counted, every sample once, the same on the driver and in a read task."""

from __future__ import annotations

import pickle
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import storage
from manifests.batch import Batch
from manifests.config import RunConfig
from manifests.errors import SUCCESS, UsageError
from manifests.planning.plan import Plan, batches_of, plan, window_batches
from manifests.records import RECORD_FIELDS, RECORD_NAMES, SOURCE_FIELDS
from manifests.requests import files
from manifests.requests.schema import REQUEST_NAMES


def write(path: Path, columns: dict[str, Any], **options: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return str(path)


def config(path: Path | str, **settings: Any) -> RunConfig:
    return RunConfig(manifest=(str(path),), output="out", **settings)


def all_batches(job: RunConfig, planned: Plan) -> list[Batch]:
    return [batch for window in planned.windows for batch in window_batches(job, window)]


def records(batches: list[Batch]) -> dict[int, list[dict[str, Any]]]:
    """Samples by manifest row, without inline images."""
    rows: dict[int, list[dict[str, Any]]] = {}
    for batch in batches:
        for sample in batch.samples.to_pylist():
            rows.setdefault(sample["manifest_row"], []).append(sample)
    return rows


def mixed(rows: int) -> dict[str, Any]:
    """A manifest of all tasks with some bad rows and a few extra columns."""
    tasks = ["text2img", "img2img", "inpaint", "interpolate", "text2img", "nonsense"]
    return {
        "id": [f"r{n}" for n in range(rows)],
        "task": [tasks[n % 6] for n in range(rows)],
        "prompt": [f"prompt {n}" if n % 4 != 3 else "" for n in range(rows)],
        "negative_prompt": ["ugly" if n % 5 == 0 else None for n in range(rows)],
        "image": [f"images/{n}.png" for n in range(rows)],
        "mask": [f"/masks/{n}.png" for n in range(rows)],
        "conditions": [[{"text": "cat", "image": None}, {"text": None, "image": "dog.png"}]] * rows,
        "num_images": [1 + n % 3 for n in range(rows)],
        "height": [512 if n % 7 else 500 for n in range(rows)],
        "width": [512 + 64 * (n % 3) for n in range(rows)],
        "seed": [n if n % 2 else None for n in range(rows)],
        "tag": [f"tag {n}" for n in range(rows)],
        "key": list(range(rows)),
    }


def check_invariants(job: RunConfig, planned: Plan) -> dict[int, list[dict[str, Any]]]:
    """Assert all that must hold of any plan; returns the records by manifest row."""
    batches = all_batches(job, planned)
    rows = records(batches)
    assert sorted(rows) == list(range(planned.requests)), "every request travels"
    valid = {row for row, found in rows.items() if found[0]["status"] == SUCCESS}
    assert planned.requests == len(valid) + planned.rejected
    for row, found in rows.items():
        assert sorted(sample["image_index"] for sample in found) == list(range(len(found)))
        if row not in valid:
            assert len(found) == 1
            assert found[0]["status"] == "failed_to_validate"
            assert found[0]["error_message"].split(":")[0] in REQUEST_NAMES
    samples = [sample for found in rows.values() for sample in found]
    keys = [sample["key"] for sample in samples]
    assert len(set(keys)) == len(keys), "keys are unique"
    assert not any("." in key for key in keys)
    assert len({(s["id"], s["image_index"]) for s in samples if s["status"] == SUCCESS}) == planned.samples
    places = [(batch.shard, batch.index) for batch in batches]
    assert len(set(places)) == len(places)
    by_shard: dict[int, list[Batch]] = {}
    for batch in batches:
        assert batch.samples.schema.equals(planned.schema, check_metadata=True)
        assert batch.samples.num_rows > 0
        by_shard.setdefault(batch.shard, []).append(batch)
        check_batch(batch, job)
    assert sorted(by_shard) == list(range(len(planned.shards)))
    for number, expected in enumerate(planned.shards):
        check_shard(by_shard[number], expected, job)
    assert planned.batches == len(batches)
    counted = Counter({batch.bucket: 0 for batch in batches if batch.bucket})
    for batch in batches:
        if batch.bucket:
            counted[batch.bucket] += batch.samples.num_rows
    assert dict(counted) == {bucket: count.samples for bucket, count in planned.buckets.items()}
    assert sum(planned.samples_by_task.values()) == planned.samples
    return rows


def check_batch(batch: Batch, job: RunConfig) -> None:
    samples = batch.samples.drop_columns([field.name for field in SOURCE_FIELDS]).to_pylist()
    if batch.bucket is None:
        assert {sample["status"] for sample in samples} == {"failed_to_validate"}
        return
    assert len(samples) <= job.call_limit.of(batch.bucket.height, batch.bucket.width)
    for sample in samples:
        assert sample["status"] == SUCCESS
        for name, value in batch.bucket.model_dump().items():
            assert (sample["negative_prompt"] is not None if name == "has_negative" else sample[name]) == value


def check_shard(batches: list[Batch], expected: Any, job: RunConfig) -> None:
    assert [batch.index for batch in batches] == list(range(expected.batches))
    made = [batch for batch in batches if batch.bucket is not None]
    assert {batch.bucket.task for batch in made if batch.bucket} == ({expected.task} - {None})
    samples = sum(batch.samples.num_rows for batch in made)
    assert samples == expected.samples
    assert samples <= job.shard_size or len(made) == 1
    rejected = [batch for batch in batches if batch.bucket is None]
    assert len(rejected) <= 1
    assert sum(batch.samples.num_rows for batch in rejected) == expected.rejected
    assert not rejected or rejected[0] is batches[-1]
    keys = [key for batch in batches for key in batch.samples.column("key").to_pylist()]
    assert [int(key[5:]) for key in keys] == list(range(expected.rows))
    assert {key[:5] for key in keys} == {f"{batches[0].shard:05d}"}


@pytest.mark.parametrize("batch_size", [1, 3, 4, 50])
@pytest.mark.parametrize("batch_pixels", [None, 4096, 2 * 512 * 576])
@pytest.mark.parametrize("shard_size", [1, 7, 1000])
def test_every_sample_has_one_place_whatever_the_sizes(
    tmp_path: Path, batch_size: int, batch_pixels: int | None, shard_size: int
) -> None:
    path = write(tmp_path / "m.parquet", mixed(100), row_group_size=30)
    job = config(path, batch_size=batch_size, batch_pixels=batch_pixels, shard_size=shard_size)
    check_invariants(job, plan(job))


def test_two_sizes_of_one_manifest_have_full_calls_each(tmp_path: Path) -> None:
    sides = [512 if n % 3 else 1024 for n in range(96)]
    columns = {"task": ["text2img"] * 96, "prompt": ["x"] * 96, "height": sides, "width": sides}
    job = config(write(tmp_path / "m.parquet", columns), batch_size=16, batch_pixels=4 * 1024 * 1024)
    batches = all_batches(job, plan(job))
    found = Counter((b.bucket.height if b.bucket else 0, b.samples.num_rows) for b in batches)
    assert found == {(512, 16): 4, (1024, 4): 8}
    alone = all_batches(config(tmp_path / "m.parquet", batch_size=16), plan(config(tmp_path / "m.parquet")))
    keys = list(records(batches))
    assert keys == list(records(alone)), "the order of images is that of the buckets in any case"


def test_windows_files_and_row_groups_change_nothing_but_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table(mixed(200))
    for number, start in enumerate(range(0, 200, 37)):
        pq.write_table(table.slice(start, 37), tmp_path / f"{number}.parquet", row_group_size=11)
    job = config(tmp_path, shard_size=20)
    whole = check_invariants(job, plan(job))
    monkeypatch.setattr(files, "WINDOW_ROWS", 25)
    planned = plan(job)
    assert len(planned.windows) == 8
    cut = check_invariants(job, planned)
    for row, found in whole.items():
        for one, other in zip(found, cut[row], strict=True):
            assert {**one, "key": ""} == {**other, "key": ""}


def test_a_second_plan_is_the_same_to_the_last_byte(tmp_path: Path) -> None:
    job = config(write(tmp_path / "m.parquet", mixed(60)))
    one, other = plan(job), plan(job)
    assert one.fingerprint == other.fingerprint
    assert one.shards == other.shards
    for first, second in zip(all_batches(job, one), all_batches(job, other), strict=True):
        assert first.to_block().equals(second.to_block())


def test_a_resumed_run_asks_for_some_batches_only(tmp_path: Path) -> None:
    job = config(write(tmp_path / "m.parquet", mixed(60)), shard_size=10)
    planned = plan(job)
    everything = {(b.shard, b.index): b for b in all_batches(job, planned)}
    wanted = set(list(everything)[1::3])
    found = {(b.shard, b.index): b for b in batches_of(job, planned.windows, wanted)}
    assert set(found) == wanted
    assert all(found[place].samples.equals(everything[place].samples) for place in wanted)
    assert list(batches_of(job, planned.windows, set())) == []
    assert list(batches_of(job, [])) == []


def test_a_window_is_small_and_can_be_sent(tmp_path: Path) -> None:
    job = config(write(tmp_path / "m.parquet", mixed(60)))
    [window] = plan(job).windows
    sent = pickle.dumps(window)
    assert len(sent) < 4000
    assert len(list(window_batches(job, pickle.loads(sent)))) == plan(job).batches


def test_records_say_what_will_be_made(tmp_path: Path) -> None:
    job = config(write(tmp_path / "m.parquet", mixed(60)), checkpoint="demo", seed=3)
    rows = check_invariants(job, plan(job))
    text, image, paint, mix = rows[4][0], rows[1][0], rows[2][0], rows[3][0]
    assert text["strength"] is None
    assert text["image"] is None
    assert text["image_path"] is None
    assert text["mask_polarity"] is None
    assert text["caption"] == text["prompt"] == "prompt 4"
    assert text["checkpoint"] == "demo"
    assert text["tag"] == "tag 4"
    assert text["manifest_key"] == 4
    assert image["image"] == {"bytes": None, "path": f"{tmp_path}/images/1.png"}
    assert image["image_path"] == f"{tmp_path}/images/1.png"
    assert image["strength"] == 0.3
    assert image["seed"] == 1
    assert paint["mask_path"] == "/masks/2.png"
    assert paint["mask_polarity"] == "white"
    assert mix["prompt"] == ""
    assert mix["caption"] == "cat"
    assert mix["conditions"] == [
        {"text": "cat", "image": None, "weight": 0.5},
        {"text": None, "image": f"{tmp_path}/dog.png", "weight": 0.5},
    ]
    assert mix["condition_sources"][1]["image"] == {"bytes": None, "path": f"{tmp_path}/dog.png"}
    bad = rows[0][0]
    assert bad["height"] is None
    assert bad["width"] == 512
    assert bad["prompt"] == "prompt 0"
    assert "height: 500" in bad["error_message"]
    assert rows[5][0]["task"] is None
    assert "task: 'nonsense'" in rows[5][0]["error_message"]


def test_the_columns_are_the_declared_ones_with_their_descriptions(tmp_path: Path) -> None:
    columns = {"prompt": ["x"], "pixels": [1], "manifest_pixels": [2], "note": [[{"a": 1}]]}
    schema = plan(config(write(tmp_path / "m.parquet", columns))).schema
    assert schema.names[: len(RECORD_NAMES)] == list(RECORD_NAMES)
    assert schema.field("key").metadata == RECORD_FIELDS[0].metadata
    others = ["manifest_manifest_pixels", "manifest_pixels", "note"]
    assert schema.names[len(RECORD_NAMES) + len(SOURCE_FIELDS) :] == others


def test_inline_images_reach_the_batches_and_the_driver_reads_none_where_rows_have_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    iter_batches = pq.ParquetFile.iter_batches

    def spy(self: Any, *args: Any, columns: list[str], **options: Any) -> Any:
        read.extend(columns)
        return iter_batches(self, *args, columns=columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    images = [{"bytes": b"png %d" % n, "path": None} for n in range(9)] + [None]
    columns = {"task": ["img2img"] * 10, "prompt": ["x"] * 10, "image": images}
    named = config(write(tmp_path / "named.parquet", {"id": [f"r{n}" for n in range(10)], **columns}))
    planned = plan(named)
    assert "image.path" in read
    assert "image.bytes" not in read
    rows = check_invariants(named, planned)
    assert [rows[n][0]["image"]["bytes"] for n in range(9)] == [b"png %d" % n for n in range(9)]
    assert rows[0][0]["image_path"] is None
    assert rows[9][0]["image"] is None
    unnamed = config(write(tmp_path / "unnamed.parquet", columns))
    found = check_invariants(unnamed, plan(unnamed))
    assert len({found[n][0]["id"] for n in range(10)}) == 10
    assert not any("-" in found[n][0]["id"] for n in range(9))


def test_relative_paths_of_two_folders_are_meant_from_their_own(tmp_path: Path) -> None:
    columns = {"task": ["img2img"], "prompt": ["x"], "image": ["in.png"]}
    for name in ("a", "b"):
        write(tmp_path / name / "m.parquet", columns)
    job = config(tmp_path)
    rows = check_invariants(job, plan(job))
    assert [rows[n][0]["image_path"] for n in (0, 1)] == [f"{tmp_path}/a/in.png", f"{tmp_path}/b/in.png"]


def test_a_manifest_on_an_object_store_is_planned_there(tmp_path: Path) -> None:
    root = f"memory://{uuid.uuid4().hex}"
    storage.put_atomic(write(tmp_path / "m.parquet", mixed(20)), f"{root}/m.parquet")
    job = config(f"{root}/m.parquet")
    rows = check_invariants(job, plan(job))
    assert rows[1][0]["image_path"] == f"{root.replace('://', ':///')}/images/1.png"


def test_a_window_of_bad_rows_only_has_a_shard_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "WINDOW_ROWS", 5)
    tasks = ["text2img"] * 5 + ["nonsense"] * 5 + ["text2img"] * 5
    job = config(write(tmp_path / "m.parquet", {"task": tasks, "prompt": ["x"] * 15}), shard_size=5)
    planned = plan(job)
    check_invariants(job, planned)
    assert [shard.task for shard in planned.shards] == ["text2img", None, "text2img"]
    assert planned.rejected == 5


def test_an_empty_manifest_is_an_empty_plan(tmp_path: Path) -> None:
    job = config(write(tmp_path / "m.parquet", {"prompt": pa.array([], pa.string())}))
    planned = plan(job)
    assert (planned.requests, planned.samples, planned.windows, planned.shards) == (0, 0, (), ())


def test_a_bad_default_ends_the_plan_before_the_manifest_is_read() -> None:
    with pytest.raises(UsageError, match="the job's height: 500"):
        plan(config("/nowhere.parquet", height=500))


class TestFingerprint:
    def of(self, path: Path | str, columns: dict[str, Any], **settings: Any) -> str:
        return plan(config(write(Path(path), columns), **settings)).fingerprint

    def test_it_does_not_know_where_or_how_the_manifest_is_stored(self, tmp_path: Path) -> None:
        columns = mixed(50)
        first = self.of(tmp_path / "a" / "m.parquet", columns)
        assert self.of(tmp_path / "b" / "other.parquet", columns) == first
        path = write(tmp_path / "c.parquet", columns, compression="zstd", row_group_size=7)
        assert plan(config(path)).fingerprint == first
        retyped = {**columns, "prompt": pa.array(columns["prompt"], pa.large_string())}
        retyped["height"] = pa.array(columns["height"], pa.float64())
        assert self.of(tmp_path / "d.parquet", retyped) == first

    def test_it_changes_with_whatever_changes_an_image_or_a_place(self, tmp_path: Path) -> None:
        columns = mixed(50)
        seen = [self.of(tmp_path / "m.parquet", columns)]
        for name, value in (("prompt", "other"), ("seed", 7), ("height", 64), ("image", "other.png")):
            values = list(columns[name])
            values[13] = value
            seen.append(self.of(tmp_path / "m.parquet", {**columns, name: values}))
        seen.append(self.of(tmp_path / "m.parquet", {k: v for k, v in columns.items() if k != "tag"}))
        seen.append(self.of(tmp_path / "m.parquet", {k: v[:-1] for k, v in columns.items()}))
        seen.append(self.of(tmp_path / "m.parquet", {k: v[::-1] for k, v in columns.items()}))
        for setting in (
            {"seed": 1},
            {"batch_size": 5},
            {"batch_pixels": 512 * 512},
            {"shard_size": 5},
            {"checkpoint": "x"},
            {"image_format": "jpg"},
            {"mark": False},
            {"quality": 50},
            {"height": 64},
            {"strength": 0.5},
        ):
            seen.append(self.of(tmp_path / "m.parquet", columns, **setting))
        assert len(set(seen)) == len(seen)

    def test_it_ignores_what_changes_no_image(self, tmp_path: Path) -> None:
        columns = mixed(20)
        first = self.of(tmp_path / "m.parquet", columns)
        assert self.of(tmp_path / "m.parquet", columns, device="cpu", prior_actors="2") == first
