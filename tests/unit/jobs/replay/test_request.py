"""From a record back to the sample that the plan made of the manifest's row, and changes to it."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.replay.recorded import find
from jobs.replay.request import parse_changes, request_batch
from manifests.batch import Batch
from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.planning.plan import batches_of, plan


def key_by_id(config: RunConfig, name: str) -> str:
    for path in sorted(Path(config.output).glob("*.parquet")):
        for row in pq.read_table(path, columns=["id", "key"]).to_pylist():
            if row["id"] == name:
                return str(row["key"])
    raise KeyError(name)


def changed(config: RunConfig, name: str, *words: str) -> Batch:
    return request_batch(find(config.output, key_by_id(config, name)), parse_changes(words))


def test_the_sample_is_the_one_that_the_plan_made(finished: RunConfig) -> None:
    tasks = set()
    for batch in batches_of(finished, plan(finished).windows):
        for position in batch.pending:
            planned = batch.samples.slice(position, 1)
            (key,) = batch.values("key", [position])
            again = request_batch(find(finished.output, key), {})
            assert again.bucket == batch.bucket
            assert again.samples.schema.equals(planned.schema)
            assert again.samples.to_pylist() == planned.to_pylist()
            tasks.add(again.bucket.task if again.bucket else None)
    assert tasks == {"text2img", "img2img", "inpaint", "interpolate"}


def test_copies_fill_the_batch_up(config: RunConfig) -> None:
    batch = request_batch(find(config.output, "000000000"), {}, rows=3)
    assert batch.values("key", batch.pending) == ["000000000"] * 3


def test_a_change_is_read_as_a_manifest_would_be(config: RunConfig) -> None:
    batch = changed(config, "t2", "steps=50.0", "prompt=a dog = a cat", "negative_prompt=", "width=128", "seed=1e2")
    (row,) = batch.samples.to_pylist()
    assert (row["steps"], row["prompt"], row["negative_prompt"], row["seed"]) == (50, "a dog = a cat", "", 100)
    assert row["caption"] == "a dog = a cat"
    assert batch.bucket is not None
    assert (batch.bucket.steps, batch.bucket.width, batch.bucket.has_negative) == (50, 128, True)


def test_a_name_alone_is_a_row_that_leaves_it_out(config: RunConfig) -> None:
    batch = changed(config, "t1", "negative_prompt", "steps", "guidance_scale=9")
    assert batch.bucket is not None
    assert (batch.bucket.has_negative, batch.bucket.steps, batch.bucket.guidance_scale) == (False, 4, 9.0)


def test_the_task_may_change_with_what_it_needs(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    batch = changed(config, "t2", "task=img2img", "image=photo.png", "strength=0.4")
    (row,) = batch.samples.to_pylist()
    assert row["image"] == {"bytes": None, "path": str(tmp_path / "photo.png")}
    batch = changed(config, "t2", "task=interpolate", 'conditions=[{"text": "x"}, {"text": "y"}]')
    assert [one["weight"] for one in batch.samples.to_pylist()[0]["condition_sources"]] == [0.5, 0.5]
    with pytest.raises(UsageError, match=r"--set: image: null holds no image, but this task needs one"):
        changed(config, "t2", "task=img2img")


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("step=50", "--set step=50: 'step' is no setting of a row; did you mean 'steps'?"),
        ("guidance=5", "did you mean 'guidance_scale'?"),
        ("id=x", "'id' is no setting of a row; settings are task, prompt, "),
        ("steps=0", "--set: steps: '0' is not a whole number from 1 to 1000"),
        ("width=100", "width: '100' is not a multiple of 64; use 64 or 128"),
        ("strength=2", None),
    ],
)
def test_a_change_that_cannot_be_is_told_as_of_a_manifest(config: RunConfig, word: str, why: str | None) -> None:
    if why is None:
        # What the row's task does not look at is not looked at here either.
        assert changed(config, "t2", word).bucket == changed(config, "t2").bucket
        return
    with pytest.raises(UsageError) as caught:
        changed(config, "t2", word)
    assert why in str(caught.value)


def test_a_row_that_failed_can_be_mended(config: RunConfig) -> None:
    batch = changed(config, "wrong", "width=128")
    assert batch.bucket is not None
    assert (batch.bucket.width, batch.values("status", [0])) == (128, ["success"])
    with pytest.raises(UsageError, match="prompt: null is missing"):
        changed(config, "wrong", "width=128", "prompt")


def test_inline_images_without_their_manifest_are_told_and_files_are_not_missed(config: RunConfig) -> None:
    os.rename(config.manifest[0], f"{config.manifest[0]}.away")
    with pytest.raises(UsageError, match=r"image: its bytes lay inline in the manifest, and that cannot be read \("):
        changed(config, "i1")
    with pytest.raises(UsageError, match=r"conditions\[1\].image: its bytes lay inline"):
        changed(config, "m0")
    assert changed(config, "i1", f"image={config.output}/../photo.png").pending == [0]
    assert changed(config, "t0").pending == [0]
    rows = pq.read_table(f"{config.output}/00001.parquet").to_pylist()
    (named,) = [row["key"] for row in rows if row["image_path"]]
    assert request_batch(find(config.output, named), {}).pending == [0]


def test_a_manifest_with_other_rows_now_is_not_taken_for_the_old_one(config: RunConfig) -> None:
    table = pq.read_table(config.manifest[0])
    pq.write_table(table.take(list(reversed(range(table.num_rows)))), config.manifest[0])
    with pytest.raises(UsageError, match="and its row is another one now"):
        changed(config, "i1")
    pq.write_table(table.slice(0, 2), config.manifest[0])
    with pytest.raises(UsageError, match="its bytes lay inline in the manifest, and "):
        changed(config, "i1")


def test_embeddings_that_a_row_brought_along_are_brought_along_again(config: RunConfig) -> None:
    table = pq.read_table(config.manifest[0])
    embeds = pa.array([[float(row)] * 4 for row in range(table.num_rows)], pa.list_(pa.float32()))
    pq.write_table(table.append_column("image_embeds", embeds), config.manifest[0])
    assert changed(config, "t2").values("image_embeds", [0]) == [[2.0] * 4]
