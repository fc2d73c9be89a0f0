"""jobs/plan.py: what a run would do, read from the table, the JSON and the exit code; nothing is written."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs import plan as script
from jobs.cost.step_times import Stopwatch
from jobs.engine.pools import Pools, PoolSize
from jobs.run import run_folder
from manifests.batch import Bucket
from manifests.call_limit import CallLimit
from manifests.commit import Receipt
from manifests.config import RunConfig
from manifests.errors import UsageError
from tests.s3_server import S3Server
from tests.unit import finished_run

POOLS = Pools("cpu", PoolSize(1, 1), PoolSize(2, 2), 2, 1.0, 1.0, 1)
SMALL = ("--batch-size", "2", "--shard-size", "4", "--height", "64", "--width", "64")


def planned(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the script."""
    monkeypatch.setattr("sys.argv", ["plan.py", *arguments])
    monkeypatch.setenv("COLUMNS", "100")
    code = script.main()
    return code, *capsys.readouterr()


class Script:
    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._fixtures = capsys, monkeypatch

    def __call__(self, manifest: Path | str, output: Path | str, *more: str) -> tuple[int, str, str]:
        return planned(*self._fixtures, "--manifest", str(manifest), "--output", str(output), *SMALL, *more)

    def json(self, manifest: Path | str, output: Path | str, *more: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self(manifest, output, "--json", *more)[1])
        return found


@pytest.fixture
def run_plan(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Script:
    return Script(capsys, monkeypatch)


def write(path: Path, **columns: Sequence[Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def measured(output: str, decoder: Sequence[float], height: int = 64) -> None:
    """What a run on this output would have measured."""
    bucket = Bucket(
        task="text2img",
        height=height,
        width=64,
        steps=100,
        guidance_scale=4.0,
        prior_steps=25,
        prior_guidance_scale=4.0,
        strength=None,
        has_negative=False,
    )
    watch = Stopwatch()
    for number, seconds in enumerate(decoder):
        receipt = Receipt(shard=0, batch=number, count=2, successes=2, failed_by_status={}, bytes=3000, bucket=bucket)
        watch.add(receipt.model_copy(update={"seconds": {"prior": 1.0, "decoder": seconds}}))
        # A batch that is not full says nothing about one that is.
        watch.add(receipt.model_copy(update={"count": 1, "seconds": {"prior": 0.1, "decoder": 0.1}}))
    config = RunConfig(manifest=("m",), output=output)
    run_folder.write_times(config, watch.record("cpu", CallLimit(2), POOLS))


def test_a_manifest_without_tasks_is_planned_by_its_inputs_and_says_so(run_plan: Script, tmp_path: Path) -> None:
    rows = [{"prompt": "a cat", "image": None}, {"prompt": "a dog", "image": {"bytes": b"png", "path": None}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    code, shown, _ = run_plan(tmp_path / "m.parquet", tmp_path / "out")
    assert code == 0
    assert "no column 'task': conditions make a row interpolate" in shown
    assert re.search("1 text2img.*1 img2img.*2 images", shown, re.DOTALL), shown
    pq.write_table(pa.table({"task": ["text2img"], "prompt": ["a bird"]}), tmp_path / "n.parquet")
    assert "no column 'task' in 1 file: " in run_plan(tmp_path, tmp_path / "out")[1]


def test_rows_images_and_shards_are_counted_and_nothing_is_written(tmp_path: Path, run_plan: Script) -> None:
    manifest = finished_run.write_manifest(tmp_path / "m.parquet")
    code, table, _ = run_plan(manifest, tmp_path / "out")
    assert code == 3
    assert "8: 7 can be made, 1 cannot" in table
    assert "7 text2img, 10 images" in table
    assert "0 of 3 shards committed, 0 batches staged, 10 images left" in table
    assert "width: is not a multiple of 64 from 64 to 4096" in table
    assert "rows 6, the first: 65 is not a multiple of 64; use 64 or 128" in table
    assert os.listdir(tmp_path) == ["m.parquet"]


def test_rows_are_counted_by_reason_with_the_first_of_them(tmp_path: Path, run_plan: Script) -> None:
    count = 30_000
    ids = ["twice" if row in (5, 11_000, 29_999) else f"r{row}" for row in range(count)]
    heights = [500 if row % 10_000 == 9 else 512 for row in range(count)]
    tasks = ["[b]" if row == 25_000 else "text2img" for row in range(count)]
    manifest = write(tmp_path / "m.parquet", id=ids, task=tasks, prompt=["x"] * count, height=heights)
    found = run_plan.json(manifest, tmp_path / "out")
    problems = {problem["column"]: (problem["count"], problem["rows"]) for problem in found["problems"]}
    assert problems == {"height": (3, [9, 10_009, 20_009]), "id": (2, [11_000, 29_999]), "task": (1, [25_000])}
    assert found["rejected"] == 6
    examples = {problem["column"]: problem["example"] for problem in found["problems"]}
    assert examples["id"] == "id: 'twice' was already used by row 5 of the manifest"
    assert "'[b]' is not a task" in run_plan(manifest, tmp_path / "out")[1]


def test_what_is_committed_is_not_left(tmp_path: Path, run_plan: Script) -> None:
    config = finished_run.make_config(tmp_path)
    finished_run.run(config)
    (Path(config.output) / "00001_stats.json").unlink()
    done = run_plan.json(config.manifest[0], config.output)["done"]
    assert (done["shards"], done["sealed"], done["images_left"]) == (3, 2, 4)
    share = run_plan.json(config.manifest[0], config.output, "--shards", "2/2")["done"]
    assert (share["shards"], share["sealed"], share["images_left"]) == (1, 0, 4)


def test_an_output_of_another_manifest_is_refused_as_the_run_would(tmp_path: Path, run_plan: Script) -> None:
    config = finished_run.make_config(tmp_path)
    finished_run.run(config)
    other = write(tmp_path / "other.parquet", task=["text2img"], prompt=["x"])
    code, table, said = run_plan(other, config.output)
    assert code == 2
    assert "1: 1 can be made" in table
    assert "nothing can run" in said
    assert "was begun with something else: the manifest has other content" in said


def test_a_manifest_without_a_usable_row_ends_with_2(tmp_path: Path, run_plan: Script) -> None:
    manifest = write(tmp_path / "m.parquet", task=pa.array(["?"] * 3, pa.string()))
    code, _, said = run_plan(manifest, tmp_path / "out")
    assert code == 2
    assert "none of the 3 rows can be made" in said


def test_more_rejected_rows_than_may_fail_are_told_as_the_run_would(tmp_path: Path, run_plan: Script) -> None:
    manifest = write(tmp_path / "m.parquet", task=["text2img", "?", "?"], prompt=["x"] * 3)
    assert run_plan(manifest, tmp_path / "out", "--max-failed", "2")[0] == 3
    code, _, said = run_plan(manifest, tmp_path / "out", "--max-failed", "1")
    assert code == 2
    assert "nothing can run: 2 of 3 images have failed, and --max-failed 1 lets no more than 1: " in said


def test_a_disk_that_will_not_hold_the_output_is_told(
    tmp_path: Path, run_plan: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write(tmp_path / "m.parquet", task=["text2img"] * 7, prompt=["x"] * 7)
    output, other = tmp_path / "out", tmp_path / "other"
    assert run_plan.json(manifest, output)["disk"]["free"] > 0
    assert "disk " not in run_plan(manifest, output)[1]
    assert run_plan.json(manifest, "memory://out")["disk"] is None
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000))
    code, table, _ = run_plan(manifest, output)
    assert code == 0, "a guess refuses nothing"
    assert (
        "disk    5 kB are free on the disk of the output, and the 7 images that are left take about 71.7 kB " in table
    )
    assert "(a rule of thumb for png; nothing was measured yet)" in table
    measured(str(other), [1.0])
    code, table, _ = run_plan(manifest, output, "--times-of", str(other))
    assert code == 0, "another run may have had other images"
    assert f"take about 10.5 kB (by the sizes of {other}/_run/times.json)" in table
    measured(str(output), [1.0])
    code, _, said = run_plan(manifest, output)
    assert code == 2
    assert "7 images that are left take about 10.5 kB" in said
    assert "free some space, or make a part that fits (--shards 1/3). Nothing is lost" in said


def test_the_estimate_is_the_median_of_what_was_measured(tmp_path: Path, run_plan: Script) -> None:
    manifest = write(tmp_path / "m.parquet", task=["text2img"] * 7, prompt=["x"] * 7)
    # The first batch carried a compilation.
    measured(str(tmp_path / "before"), [99.0, 3.0, 3.0, 5.0])
    found = run_plan.json(manifest, tmp_path / "out", "--times-of", str(tmp_path / "before"))
    cost = found["estimate"]
    assert cost["prior_hours"] * 3600 == pytest.approx(4 * 1.0)
    assert cost["decoder_hours"] * 3600 == pytest.approx(4 * 3.0)
    assert cost["hours"] * 3600 == pytest.approx(4 * 3.0 / 2)
    assert (cost["bytes"], cost["scaled_buckets"]) == (7 * 1500, 0)
    table = run_plan(manifest, tmp_path / "out", "--times-of", str(tmp_path / "before"))[1]
    assert "6s on 1 prior and 2 decoder actors, 10.5 kB" in table


def test_a_bucket_that_was_not_measured_is_scaled_by_its_work(tmp_path: Path, run_plan: Script) -> None:
    manifest = write(tmp_path / "m.parquet", task=["text2img"] * 4, prompt=["x"] * 4, height=[512] * 4)
    measured(str(tmp_path / "out"), [2.0])
    found = run_plan.json(manifest, tmp_path / "out", "--batch-size", "4")
    # Eight times the pixels, and twice the rows.
    assert found["buckets"][0]["cost"]["decoder_seconds"] == pytest.approx(2.0 * 8 * 2)
    assert found["estimate"]["scaled_buckets"] == 1
    assert "~" in run_plan(manifest, tmp_path / "out", "--batch-size", "4")[1]


def test_the_calls_of_each_size_are_shown(tmp_path: Path, run_plan: Script) -> None:
    sides = [512] * 32 + [1024] * 8
    columns = {"task": ["text2img"] * 40, "prompt": ["x"] * 40, "height": sides, "width": sides}
    manifest = write(tmp_path / "m.parquet", **columns)
    options = ("--batch-size", "16", "--batch-pixels", str(4 * 1024 * 1024))
    found = run_plan.json(manifest, tmp_path / "out", *options)
    assert (found["batches"], found["padding"], found["batch_pixels"]) == (4, 0.0, 4 * 1024 * 1024)
    calls = {each["bucket"]["height"]: (each["batches"], each["rows_per_call"]) for each in found["buckets"]}
    assert calls == {512: (2, 16), 1024: (2, 4)}
    table = run_plan(manifest, tmp_path / "out", *options)[1]
    assert "4 batches of up to 16 images and 4,194,304 pixels, 0.00 % padding" in table
    assert re.search(r"^ +32 +2 +16 +0.0 % +text2img 512x512", table, re.MULTILINE)


def test_times_of_an_output_without_any_are_refused(tmp_path: Path, run_plan: Script) -> None:
    manifest = write(tmp_path / "m.parquet", task=["text2img"], prompt=["x"])
    with pytest.raises(UsageError, match=r"option --times-of: .*nowhere has no _run/times.json"):
        run_plan(manifest, tmp_path / "out", "--times-of", str(tmp_path / "nowhere"))


def test_twelve_aspect_ratios_in_any_order_leave_less_than_one_percent_padding(
    tmp_path: Path, run_plan: Script
) -> None:
    count = 40_000
    sides = [(512 + 64 * (n % 4), 512 + 64 * (n // 4)) for n in range(12)]
    # Neighbours differ and no period of theirs is the window's.
    picked = [sides[(row * row + row // 7) % 12] for row in range(count)]
    heights, widths = zip(*picked, strict=True)
    manifest = write(
        tmp_path / "m.parquet", prompt=["x"] * count, task=["text2img"] * count, height=heights, width=widths
    )
    found = run_plan.json(manifest, tmp_path / "out", "--batch-size", "8")
    assert found["padding"] <= 0.01


def test_inputs_are_looked_at_as_the_run_would(tmp_path: Path, run_plan: Script) -> None:
    for name, colour in (("white", 255), ("black", 0)):
        Image.new("L", (8, 8), colour).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "white.png").read_bytes()[:50])
    rows: list[dict[str, Any]] = [
        {"task": "text2img", "prompt": "a cat"},
        {"task": "img2img", "prompt": "x", "image": "white.png"},
        {"task": "img2img", "prompt": "x", "image": "missing.png", "num_images": 3},
        {"task": "img2img", "prompt": "x", "image": "broken.png"},
        {"task": "inpaint", "prompt": "x", "image": "white.png", "mask": "black.png"},
        {"task": "inpaint", "prompt": "x", "image": "white.png", "mask": "black.png", "mask_polarity": "black"},
        {"task": "inpaint", "prompt": "x", "image": "missing.png", "mask": "missing.png"},
        {"task": "text2img", "prompt": "cat " * 76},
        {"task": "text2img", "prompt": "cat " * 75},
        {"task": "text2img", "prompt": "x", "image": "missing.png"},
    ]
    manifest = finished_run.write_manifest(tmp_path / "m.parquet", rows)
    found = run_plan.json(manifest, tmp_path / "out", "--check-inputs")
    assert found["unusable"] == 3
    problems = {(p["column"], p["reason"]): p["rows"] for p in found["problems"]}
    assert problems == {
        ("image", "does not exist"): [2, 6],
        ("mask", "does not exist"): [6],
        ("image", "is truncated or damaged"): [3],
    }
    warnings = {(p["column"], p["reason"].split(";")[0]): p["rows"] for p in found["warnings"]}
    assert warnings == {
        ("mask", "repaints nothing"): [4],
        ("mask", "repaints most of the image"): [5],
        ("prompt", "has more than 77 tokens"): [7],
    }
    code, table, _ = run_plan(manifest, tmp_path / "out", "--check-inputs")
    assert code == 3
    assert "10: 7 can be made, 3 cannot" in table
    assert f"image ({tmp_path}/missing.png) does not exist; correct the path" in table


def test_a_manifest_of_200_files_and_one_on_s3(tmp_path: Path, run_plan: Script, s3: S3Server) -> None:
    for number in range(200):
        columns = {"id": [f"r{number:03d}-{row}" for row in range(3)], "task": ["text2img"] * 3, "prompt": ["x"] * 3}
        write(tmp_path / f"part-{number:03d}.parquet", **columns, height=["odd" if number == 15 else "64"] * 3)
    here = run_plan.json(f"{tmp_path}/part-*.parquet", tmp_path / "out")
    assert (here["rows"], here["rejected"], here["images"]) == (600, 3, 597)
    few = run_plan.json(f"{tmp_path}/part-01*.parquet", tmp_path / "out")
    fsspec.filesystem("s3").put([str(path) for path in tmp_path.glob("part-01*")], "bucket/parts/")
    there = run_plan.json("s3://bucket/parts/part-*.parquet", "s3://bucket/out")
    assert there["fingerprint"] == few["fingerprint"]
    assert [(problem["reason"], problem["rows"]) for problem in there["problems"]] == [
        ("is not a multiple of 64 from 64 to 4096", [15, 16, 17])
    ]


def test_a_manifest_without_rows_is_nothing_to_do_as_generate_has_it(tmp_path: Path, run_plan: Script) -> None:
    manifest = str(tmp_path / "m.parquet")
    pq.write_table(pa.table({"task": pa.array([], pa.string()), "prompt": pa.array([], pa.string())}), manifest)
    code, table, said = run_plan(manifest, tmp_path / "out")
    assert code == 0
    assert "error" not in said
    assert "plan    0 images" in table


def test_the_price_on_paper_needs_no_run(tmp_path: Path, run_plan: Script) -> None:
    manifest = finished_run.write_manifest(tmp_path / "m.parquet", [{"id": "a", "task": "text2img", "prompt": "a cat"}])
    usual = run_plan.json(manifest, tmp_path / "out")["paper"]
    assert (usual["chip"], usual["peak_tflops"], usual["part"]) == ("Ascend910B2", 353.9, 0.26)
    work = usual["prior_tflop"] + usual["decoder_tflop"]
    assert usual["card_hours"] == pytest.approx(work / (353.9 * 0.26) / 3600)
    other = run_plan.json(manifest, tmp_path / "out", "--peak", "100", "--utilization", "0.5")["paper"]
    assert other["chip"] is None
    assert other["card_hours"] == pytest.approx(work / 50 / 3600)
    _, out, _ = run_plan(manifest, tmp_path / "out")
    assert "of one card at 26% of 353.9 TFLOP/s (Ascend910B2)" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("--chip", "Ascend999"),
            "the peak of 'Ascend999' is not known here; known: Ascend910B2, Ascend910B3, or --peak",
        ),
        (("--chip", "Ascend910B2", "--peak", "1"), "give one"),
        (("--utilization", "1.5"), "--utilization: is more than 0 and at most 1"),
        (("--peak", "0"), "--peak: is more than 0"),
    ],
)
def test_no_peak_is_guessed(tmp_path: Path, run_plan: Script, options: tuple[str, ...], words: str) -> None:
    manifest = finished_run.write_manifest(tmp_path / "m.parquet", [{"id": "a", "task": "text2img", "prompt": "a cat"}])
    with pytest.raises(UsageError, match=re.escape(words)):
        run_plan(manifest, tmp_path / "out", *options)
