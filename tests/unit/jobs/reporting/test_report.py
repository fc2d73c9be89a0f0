"""The report of an output: numbers, pictures, filters in a real browser, and the manifest of what failed."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.reporting.page import command
from jobs.reporting.report import make_report
from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.planning.plan import plan
from tests.unit import finished_run

ROOT = Path(__file__).resolve().parents[4]


def words(page: str) -> str:
    """What a person reads."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<(style|script)>.*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL)))


def test_it_counts_what_is_committed_and_shows_an_image_of_every_kind(output: Path) -> None:
    page = Path(make_report(str(output))).read_text()
    assert re.search(r"6 images written 2 rows failed 7 requests", words(page))
    assert page.count('alt="result: ') == 6
    for name in (
        "text2img 64 x 64, 4 steps",
        "img2img 64 x 64, 4 steps, guidance 7, strength 0.6",
        "inpaint",
        "interpolate",
    ):
        assert name in words(page)
    # Everything is in the file, so that it opens without a network.
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert len(page) < 100_000


def test_every_image_has_the_command_that_makes_it_again(output: Path) -> None:
    page = words(Path(make_report(str(output))).read_text())
    for shard in range(4):
        assert f"python jobs/redo.py --output {output} --key {shard:05d}0000" in page


def test_sources_and_masks_that_can_be_read_stand_beside_their_result(output: Path, tmp_path: Path) -> None:
    index = pq.read_table(output / "00002.parquet")
    for column, file in (("image_path", "photo.png"), ("mask_path", "mask.png")):
        place = index.schema.get_field_index(column)
        paths = [str(ROOT / "tests" / "data" / "output_0_1" / file)] * index.num_rows
        index = index.set_column(place, index.schema.field(place), [paths])
    pq.write_table(index, output / "00002.parquet")
    page = Path(make_report(str(output))).read_text()
    assert 'alt="source: a hat"' in page
    assert 'alt="mask: a hat"' in page
    assert "cannot be read: /tmp/oldout/photo.png" in words(page)


def test_texts_of_a_prompt_cannot_become_part_of_the_page(output: Path) -> None:
    index = pq.read_table(output / "00000.parquet")
    place = index.schema.get_field_index("caption")
    captions = ['<script>alert("x")</script>', '" onload="x', "</template>"][: index.num_rows]
    captions += [""] * (index.num_rows - len(captions))
    pq.write_table(index.set_column(place, index.schema.field(place), [captions]), output / "00000.parquet")
    page = Path(make_report(str(output))).read_text()
    assert page.count("<script>") == 1
    assert 'alert("x")' not in page


def test_what_failed_is_a_manifest_that_plans_as_it_is(output: Path) -> None:
    make_report(str(output))
    manifest = output / "_run" / "errors.parquet"
    rows = pq.read_table(manifest).to_pylist()
    assert [(row["id"], row["failed_status"], row["lang"]) for row in rows] == [
        ("five", "failed_to_validate", "en"),
        ("broken", "failed_to_load", None),
    ]
    assert rows[1]["image"]["path"].endswith("missing.png")
    planned = plan(RunConfig(manifest=(str(manifest),), output=str(output.parent / "again")))
    assert (planned.requests, planned.rejected) == (2, 1)


def test_an_output_without_failures_leaves_no_old_manifest_of_them(output: Path) -> None:
    make_report(str(output))
    for shard in ("00000", "00002"):
        for file in output.glob(f"{shard}*"):
            file.unlink()
    failing = [path for path in output.glob("*_stats.json") if '"failed": 0' not in path.read_text()]
    for path in failing:
        path.unlink()
    make_report(str(output))
    assert not (output / "_run" / "errors.parquet").exists()


def test_a_damaged_index_or_tar_is_told_and_the_rest_is_shown(output: Path) -> None:
    (output / "00001.parquet").write_bytes(b"PAR1 nothing PAR1")
    (output / "00000.tar").write_bytes(b"no tar")
    page = words(Path(make_report(str(output))).read_text())
    assert "00001.parquet:" in page
    assert "not in the shard" in page


def test_the_other_failures_are_a_manifest_where_an_index_with_some_is_gone(output: Path) -> None:
    failing = [path for path in sorted(output.glob("*_stats.json")) if '"failed": 0' not in path.read_text()]
    (output / failing[0].name.replace("_stats.json", ".parquet")).unlink()
    page = words(Path(make_report(str(output))).read_text())
    assert f"{failing[0].name[:5]}.parquet:" in page
    assert pq.read_metadata(output / "_run" / "errors.parquet").num_rows == 1


def test_the_sample_hangs_on_its_seed_and_nothing_else(output: Path) -> None:
    def drawn(seed: int) -> list[str]:
        page = Path(make_report(str(output), per_bucket=1, seed=seed)).read_text()
        return re.findall(r"Details of (\d+)", page)

    assert drawn(1) == drawn(1)
    assert len({tuple(drawn(seed)) for seed in range(20)}) > 1


def test_no_run_there_is_a_sentence_and_exit_code_2(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run was begun there"):
        make_report(str(tmp_path))
    script = [sys.executable, str(ROOT / "jobs" / "report.py"), "--output", str(tmp_path)]
    ended = subprocess.run(script, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1


def test_the_command_repeats_the_settings_that_are_not_the_default() -> None:
    config = RunConfig(manifest=("a b.parquet",), output="out", steps=7, append=True, report=False)
    line = command(config.model_dump(mode="json"))
    assert line.startswith("python jobs/generate.py --manifest 'a b.parquet' --output out")
    assert set(line.split(" --")[2:]) == {"output out", "append", "steps 7", "no-report"}


def test_images_over_time_are_a_chart_where_enough_batches_were_measured(output: Path) -> None:
    times = output / "_run" / "times.json"
    known = json.loads(times.read_text())
    times.write_text(json.dumps({**known, "course": [[5, 10, 0], [10, 20, 0], [20, 30, 15]]}))
    page = Path(make_report(str(output))).read_text()
    assert 'aria-label="30 images and 15 failed rows in 20s"' in page
    assert '<polyline class="good" points="0.00,100.00 25.00,66.67 50.00,33.33 100.00,0.00"/>' in page
    assert '<polyline class="bad" points="0.00,100.00 25.00,100.00 50.00,100.00 100.00,50.00"/>' in page
    times.write_text(json.dumps({**known, "course": [[5, 10, 0], [10, 20, 0]]}))
    assert "Images over time" not in Path(make_report(str(output))).read_text()


def test_scores_are_drawn_by_task_with_the_best_and_the_worst_images(tmp_path: Path) -> None:
    config = finished_run.make_config(tmp_path, scores="clip_similarity,prior_fidelity,image_phash")
    finished_run.run(config)
    page = Path(make_report(config.output)).read_text()
    told = words(page)
    assert "clip_similarity cosine of image and prompt" in told
    assert told.count("text2img 10 images, mean 0.4") == 2
    assert "image_phash" not in re.sub(r"<template>.*?</template>|<pre>.*?</pre>", "", page, flags=re.DOTALL)
    rows = [row for path in Path(config.output).glob("0*.parquet") for row in pq.read_table(path).to_pylist()]
    values = sorted(row["clip_similarity"] for row in rows if row["status"] == "success")
    first, second = (re.findall(r"<b>(0\.\d{3})</b>", part)[:5] for part in page.split(">The ")[1:3])
    assert first == [f"{value:.3f}" for value in values[::-1][:5]]
    assert second == [f"{value:.3f}" for value in values[:5]]
    # Of ten images none is at both ends.
    assert len(re.findall(r"<b>0\.\d{3}</b>", page)) == 2 * 10


def test_without_scores_there_is_no_word_of_them(output: Path) -> None:
    assert 'id="scores"' not in Path(make_report(str(output))).read_text()
