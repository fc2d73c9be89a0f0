"""Parts and shards: what is committed, what a crash leaves behind, and whether real loaders read it."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import os
import tarfile
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from manifests import commit, storage
from manifests.batch import Batch
from manifests.config import RunConfig
from manifests.errors import StorageError
from manifests.records import RECORD_FIELDS, RECORD_NAMES
from tests.unit.workers.sample_batches import make_batch
from workers.stages import shards
from workers.stages.encode import encode_images
from workers.stages.shards import read_failures, seal, write_part

CONFIG = RunConfig(manifest=("m.parquet",), output="out")


def finished(task: str, rows: Sequence[dict[str, Any]], place: tuple[int, int] = (0, 0), **kwargs: Any) -> Batch:
    """A batch as it leaves the encode stage; a row with a failed status has no image."""
    batch = make_batch(task, rows, place=place, **kwargs)
    rng = np.random.default_rng(place)
    pixels = {i: rng.integers(0, 256, (64, 64, 3), dtype=np.uint8).tobytes() for i in batch.pending}
    batch = batch.add("pixels", pa.large_binary(), pixels).drop(["image", "mask", "condition_sources"])
    return encode_images(batch, CONFIG)


def failed(message: str = "no file", status: str = "failed_to_load") -> dict[str, Any]:
    return {"status": status, "error_message": message}


def files(output: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(output.iterdir()) if p.is_file()}


def members(tar: Path) -> list[str]:
    with tarfile.open(tar) as archive:
        return archive.getnames()


def sidecars(tar: Path) -> list[dict[str, Any]]:
    with tarfile.open(tar) as archive:
        names = [name for name in archive.getnames() if name.endswith(".json")]
        return [json.loads(archive.extractfile(name).read()) for name in names]  # type: ignore[union-attr]


def stage(output: Path, batches: Sequence[Batch]) -> None:
    for batch in batches:
        write_part(batch, str(output))


# ---- parts


def test_a_part_is_the_index_plus_the_image(tmp_path: Path) -> None:
    batch = finished("text2img", [{}, failed()], place=(3, 7), extra_fields=[pa.field("dataset", pa.string())])
    leftover = batch.add("image_embeds", pa.list_(pa.float32(), 2), {0: [1.0, 2.0]}).took("decoder", 1.5)
    receipt = write_part(leftover, str(tmp_path))
    path = tmp_path / "_run" / "parts" / "00003" / "00007.arrow"
    kinds = read_failures(3, 7, str(tmp_path))
    assert [(one.status, one.count) for one in kinds] == [("failed_to_load", 1)]
    records = leftover.samples.to_pylist()
    assert receipt == commit.Receipt(
        shard=3,
        batch=7,
        count=2,
        successes=1,
        failed_by_status={"failed_to_load": 1},
        failure_kinds=kinds,
        bytes=path.stat().st_size,
        bucket=batch.bucket,
        seconds={"decoder": 1.5},
        failures=(
            commit.RowFailure(
                manifest_row=records[1]["manifest_row"],
                id=records[1]["id"],
                status="failed_to_load",
                message=records[1]["error_message"],
            ),
        ),
    )
    table = pa.ipc.open_file(path.read_bytes()).read_all()
    assert table.column_names == [*RECORD_NAMES, "dataset", "encoded"]
    assert commit.staged_parts(str(tmp_path)) == {3: {7}}


def test_a_success_without_an_image_is_not_believed(tmp_path: Path) -> None:
    batch = make_batch("text2img", [{}]).drop(["image", "mask", "condition_sources"])
    assert write_part(batch, str(tmp_path)).failed_by_status == {"failed_to_encode": 1}


def test_a_receipt_tells_the_first_failures_in_short(tmp_path: Path) -> None:
    rows = [{}, *({**failed(), "error_message": "x" * 1000} for _ in range(5))]
    receipt = write_part(finished("text2img", rows), str(tmp_path))
    assert receipt.failed_by_status == {"failed_to_load": 5}
    assert len(receipt.failures) == commit.TOLD_FAILURES
    assert {len(failure.message) for failure in receipt.failures} == {commit.TOLD_LETTERS}


def test_listings_ignore_what_is_half_written_or_foreign(tmp_path: Path) -> None:
    stage(tmp_path, [finished("text2img", [{}], place=(0, 1)), finished("text2img", [{}], place=(123456, 0))])
    folder = tmp_path / "_run" / "parts"
    (folder / "00000" / ".00002.arrow.tmp").write_bytes(b"half")
    (folder / "00000" / "notes.txt").write_bytes(b"x")
    (folder / "00009").mkdir()
    (tmp_path / "00004_stats.json.tmp").write_bytes(b"{}")
    (tmp_path / "100000_stats.json").write_bytes(b"{}")
    assert commit.staged_parts(str(tmp_path)) == {0: {1}, 123456: {0}}
    assert commit.sealed_shards(str(tmp_path)) == {100000}
    assert commit.sealed_shards(str(tmp_path / "new")) == set()
    assert commit.staged_parts(str(tmp_path / "new")) == {}


# ---- sealing


def test_a_sealed_shard_has_its_three_files_and_no_parts(tmp_path: Path) -> None:
    first = finished("text2img", [{}, failed()])
    second = finished("text2img", [{"caption": "a dog"}, failed("NaN", "failed_to_generate")], place=(0, 1))
    stage(tmp_path, [second, first])
    stats = seal(0, 2, str(tmp_path), CONFIG)

    assert sorted(files(tmp_path)) == ["00000.parquet", "00000.tar", "00000_stats.json"]
    assert commit.staged_parts(str(tmp_path)) == {}
    assert commit.sealed_shards(str(tmp_path)) == {0}
    assert stats == commit.read_stats(str(tmp_path), 0)
    assert (stats.task, stats.count, stats.successes, stats.failed) == ("text2img", 4, 2, 2)
    assert stats.failed_by_status == {"failed_to_generate": 1, "failed_to_load": 1}
    for record in (stats.tar, stats.parquet):
        assert record is not None
        data = (tmp_path / record.name).read_bytes()
        assert (record.bytes, record.sha256) == (len(data), hashlib.sha256(data).hexdigest())

    keys = ["00000000000", "00000000100"]
    assert members(tmp_path / "00000.tar") == [f"{k}.{e}" for k in keys for e in ("png", "txt", "json")]
    index = pq.read_table(tmp_path / "00000.parquet")
    assert index.column("status").to_pylist() == [
        "success",
        "failed_to_load",
        "success",
        "failed_to_generate",
    ]
    with tarfile.open(tmp_path / "00000.tar") as archive:
        image = archive.extractfile("00000000100.png").read()  # type: ignore[union-attr]
        assert archive.extractfile("00000000100.txt").read() == b"a dog"  # type: ignore[union-attr]
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in archive} == {(0, 0, 0, "", 0o644)}
    assert index.column("sha256")[2].as_py() == hashlib.sha256(image).hexdigest()
    assert stats.bytes > len(image)


def test_the_index_keeps_order_types_and_descriptions(tmp_path: Path) -> None:
    extras = [pa.field("score", pa.float32()), pa.field("tags", pa.list_(pa.string()))]
    rows = [{"score": 0.5, "tags": ["x"], "seed": 2**64 - 1}, {}]
    stage(tmp_path, [finished("text2img", rows, extra_fields=extras)])
    seal(0, 1, str(tmp_path), CONFIG)
    schema = pq.read_schema(tmp_path / "00000.parquet")
    assert schema.names == [*RECORD_NAMES, "score", "tags"]
    for field in RECORD_FIELDS:
        assert schema.field(field.name).type == field.type
        assert schema.field(field.name).metadata[b"description"] == field.metadata[b"description"]
    assert pq.read_table(tmp_path / "00000.parquet").column("seed")[0].as_py() == 2**64 - 1
    assert pq.ParquetFile(tmp_path / "00000.parquet").metadata.num_row_groups == 1


def test_large_shards_get_several_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_ROW_GROUP_ROWS", 4)
    stage(tmp_path, [finished("text2img", [failed()] * 3, place=(0, i)) for i in range(3)])
    seal(0, 3, str(tmp_path), CONFIG)
    metadata = pq.ParquetFile(tmp_path / "00000.parquet").metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [6, 3]


def test_sealing_the_same_parts_elsewhere_gives_the_same_bytes(tmp_path: Path) -> None:
    batches = [finished("img2img", [{}, failed()], place=(2, i)) for i in range(3)]
    for name in ("a", "b"):
        stage(tmp_path / name, batches)
        seal(2, 3, str(tmp_path / name), CONFIG)
    assert files(tmp_path / "a") == files(tmp_path / "b")


@pytest.mark.parametrize("dies_at", ["00000.tar", "00000.parquet", "00000_stats.json", "remove"])
def test_a_crash_at_any_step_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str) -> None:
    batches = [finished("text2img", [{}, failed()], place=(0, i)) for i in range(2)]
    stage(tmp_path / "whole", batches)
    seal(0, 2, str(tmp_path / "whole"), CONFIG)

    output = tmp_path / "crashed"
    stage(output, batches)
    with monkeypatch.context() as patch:
        for module, name in ((os, "replace"), (storage, "remove")):
            patch.setattr(module, name, dying(getattr(module, name), dies_at))
        with pytest.raises(KeyboardInterrupt):
            seal(0, 2, str(output), CONFIG)
    assert commit.sealed_shards(str(output)) == ({0} if dies_at == "remove" else set())
    assert commit.staged_parts(str(output)) == {0: {0, 1}}
    seal(0, 2, str(output), CONFIG)
    assert files(output) == files(tmp_path / "whole")
    assert commit.staged_parts(str(output)) == {}


def dying(real: Any, dies_at: str) -> Any:
    """The function, ended by what no handler catches as soon as it meets the file."""

    def function(*args: Any, **kwargs: Any) -> Any:
        if dies_at == real.__name__ or any(str(arg).endswith(f"/{dies_at}") for arg in args):
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    return function


def test_sealing_twice_is_sealing_once(tmp_path: Path) -> None:
    stage(tmp_path, [finished("text2img", [{}])])
    first = seal(0, 1, str(tmp_path), CONFIG)
    before = files(tmp_path)
    assert seal(0, 1, str(tmp_path), CONFIG) == first
    assert files(tmp_path) == before


def test_a_shard_sealed_by_another_process_meanwhile_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(tmp_path, [finished("text2img", [{}], place=(0, i)) for i in range(2)])
    real = storage.read_bytes
    reads = []

    def overtaken(url: str) -> bytes:
        reads.append(url)
        if len(reads) == 2:
            monkeypatch.setattr(storage, "read_bytes", real)
            seal(0, 2, str(tmp_path), CONFIG)
        return real(url)

    monkeypatch.setattr(storage, "read_bytes", overtaken)
    assert seal(0, 2, str(tmp_path), CONFIG).count == 2


def test_memory_holds_one_part_however_many_there_are(tmp_path: Path) -> None:
    size, count = 4_000_000, 20
    for i in range(count):
        batch = make_batch("text2img", [{}], place=(0, i)).drop(["image", "mask", "condition_sources"])
        write_part(batch.add("encoded", pa.large_binary(), {0: bytes(size)}), str(tmp_path))
    tracemalloc.start()
    arrow_before = pa.total_allocated_bytes()
    seal(0, count, str(tmp_path), CONFIG)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * size  # of that, 16 MB are the copy buffer of storage
    assert pa.total_allocated_bytes() - arrow_before < 5 * size


def test_a_missing_or_damaged_part_is_named_and_nothing_is_sealed(tmp_path: Path) -> None:
    stage(tmp_path, [finished("text2img", [{}])])
    with pytest.raises(StorageError, match=r"00001\.arrow is not staged"):
        seal(0, 2, str(tmp_path), CONFIG)
    (tmp_path / "_run" / "parts" / "00000" / "00001.arrow").write_bytes(b"ARROW1 no")
    with pytest.raises(StorageError, match=r"00001\.arrow is damaged"):
        seal(0, 2, str(tmp_path), CONFIG)
    assert files(tmp_path) == {}
    assert commit.staged_parts(str(tmp_path)) == {0: {0, 1}}


def test_parts_of_different_manifests_are_refused(tmp_path: Path) -> None:
    other = finished("text2img", [{}], place=(0, 1), extra_fields=[pa.field("x", pa.int64())])
    stage(tmp_path, [finished("text2img", [{}]), other])
    with pytest.raises(StorageError, match="different columns"):
        seal(0, 2, str(tmp_path), CONFIG)


def test_a_stats_file_of_something_else_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "00000_stats.json").write_text('{"count": 3}')
    with pytest.raises(StorageError, match="not a commit record of this program"):
        commit.read_stats(str(tmp_path), 0)


def test_object_stores_work_the_same_way() -> None:
    output = "memory://shards-test/out"
    write_part(finished("text2img", [{}]), output)
    assert commit.staged_parts(output) == {0: {0}}
    seal(0, 1, output, CONFIG)
    assert commit.sealed_shards(output) == {0}
    assert commit.staged_parts(output) == {}


# ---- the JSON members


def test_every_member_has_the_same_keys_and_no_nulls(tmp_path: Path) -> None:
    kinds: dict[str, tuple[pa.DataType, Any, Any, Any]] = {
        "dataset": (pa.string(), "demo", "demo", ""),
        "label": (pa.int64(), 3, "3", "null"),
        "score": (pa.float64(), float("nan"), "null", "null"),
        "kept": (pa.bool_(), True, "true", "null"),
        "blob": (pa.binary(), b"\x00\xff", "AP8=", ""),
        "made": (
            pa.timestamp("us", "UTC"),
            datetime.datetime(2024, 5, 1, tzinfo=datetime.timezone.utc),
            None,
            "",
        ),
        "day": (pa.date32(), datetime.date(2024, 5, 1), "2024-05-01", ""),
        "took": (pa.duration("ms"), datetime.timedelta(milliseconds=1500), "PT1.5S", ""),
        "tags": (pa.list_(pa.string()), ["x", None], '["x", null]', "null"),
        "nested": (pa.struct([("a", pa.int32())]), {"a": 1}, '{"a": 1}', "null"),
    }
    extras = [pa.field(name, kind) for name, (kind, *_) in kinds.items()]
    full = {name: value for name, (_, value, *_) in kinds.items()}
    rows = [{**full, "negative_prompt": "", "seed": 2**64 - 1}, {"negative_prompt": None}]
    stage(tmp_path, [finished("text2img", rows, extra_fields=extras)])
    seal(0, 1, str(tmp_path), CONFIG)

    first, second = sidecars(tmp_path / "00000.tar")
    assert list(first) == list(second)
    assert set(first) == {*RECORD_NAMES, "has_negative_prompt", *kinds}
    assert None not in first.values()
    assert [type(v) for v in first.values()] == [type(v) for v in second.values()]
    for name, (_, _, written, of_null) in kinds.items():
        assert second[name] == of_null
        if name != "made":
            assert first[name] == written
    assert datetime.datetime.fromisoformat(first["made"]) == full["made"]
    assert first["seed"] == str(2**64 - 1)
    assert (first["has_negative_prompt"], second["has_negative_prompt"]) == (True, False)
    assert (first["strength"], first["conditions"], first["error_message"]) == (1.0, "null", "")


# ---- loaders


@pytest.fixture
def mixed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose values appear late: null in the first rows and shards, set later; one shard all failed."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    output = tmp_path / "run"
    extras = [pa.field("score", pa.float64()), pa.field("dataset", pa.string())]
    conditions = [
        {"text": "a", "image": None, "weight": 0.5},
        {"text": None, "image": "b.png", "weight": 0.5},
    ]
    late = {"score": 0.5, "dataset": "demo", "negative_prompt": "blurry"}
    shards_rows: list[tuple[str, list[dict[str, Any]]]] = [
        ("text2img", [failed()] * 2),
        ("text2img", [{}] * 6 + [{**late, "seed": 2**64 - 1}, failed()]),
        ("img2img", [{**late, "image_path": "a.png", "score": 1.0}] * 6),
        ("inpaint", [{"image_path": "a.png", "mask_path": "m.png"}] * 2),
        ("interpolate", [{"conditions": conditions, "prompt": None}] * 2),
    ]
    for number, (task, rows) in enumerate(shards_rows):
        stage(output, [finished(task, rows, place=(number, 0), extra_fields=extras)])
        seal(number, 1, str(output), CONFIG)
    return output


def test_a_shard_without_success_has_an_index_and_no_tar(mixed_run: Path) -> None:
    stats = commit.read_stats(str(mixed_run), 0)
    assert (stats.tar, stats.successes, stats.count) == (None, 0, 2)
    assert not (mixed_run / "00000.tar").exists()
    assert commit.sealed_shards(str(mixed_run)) == {0, 1, 2, 3, 4}


def test_hugging_face_loads_the_tars_of_all_tasks_together(mixed_run: Path, tmp_path: Path) -> None:
    import datasets

    data = datasets.load_dataset(
        "webdataset", data_files=str(mixed_run / "*.tar"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert data.num_rows == 7 + 6 + 2 + 2
    assert isinstance(data[0]["png"], Image.Image)
    assert data[0]["txt"] == "a cat"
    late, other_task, interpolated = data[6]["json"], data[8]["json"], data[16]["json"]
    assert (late["negative_prompt"], late["seed"], late["score"]) == ("blurry", str(2**64 - 1), "0.5")
    assert (other_task["strength"], other_task["task"]) == (0.5, "img2img")
    assert json.loads(interpolated["conditions"])[1]["image"] == "b.png"


def test_hugging_face_streams_the_tars(mixed_run: Path) -> None:
    import datasets

    files = str(mixed_run / "*.tar")
    data = datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True)
    assert sum(1 for _ in data) == 17


def test_hugging_face_loads_the_indexes_together(mixed_run: Path, tmp_path: Path) -> None:
    import datasets

    data = datasets.load_dataset(
        "parquet", data_files=str(mixed_run / "*.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert data.num_rows == 2 + 8 + 6 + 2 + 2
    assert data.features["seed"].dtype == "uint64"
    assert data[8]["seed"] == 2**64 - 1
    assert data[2]["strength"] is None
    assert data[10]["strength"] == 0.5


def test_webdataset_iterates_the_tars(mixed_run: Path) -> None:
    import webdataset

    urls = sorted(str(path) for path in mixed_run.glob("*.tar"))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil"))
    assert len(samples) == 17
    assert samples[0]["png"].size == (64, 64)
    assert samples[6]["json"]["negative_prompt"] == "blurry"
    assert len({sample["__key__"] for sample in samples}) == 17


def test_images_in_the_tar_open(mixed_run: Path) -> None:
    with tarfile.open(mixed_run / "00001.tar") as archive:
        data = archive.extractfile(archive.getmembers()[0]).read()  # type: ignore[union-attr]
    assert Image.open(io.BytesIO(data)).size == (64, 64)
