"""The charts of devices and of files' sizes: what they say in words and what they draw."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.output.scores import Tally
from jobs.output.summary import Summary, summarize
from jobs.reporting.charts import STRIPS, file_sizes, score_charts, timeline_lines
from jobs.reporting.report import make_report
from manifests.commit import ShardStats
from workers.fault_tolerance.timeline import Lane, Timeline


def timeline(lanes: int = 2) -> Timeline:
    return Timeline(
        seconds=90,
        stretch=2.0,
        lanes=tuple(
            Lane(stage="decoder", device=f"NPU {n} of here", seconds=45 + n, busy="0993" + n * "9", lost=(6.0,) * n)
            for n in range(lanes)
        ),
    )


def test_a_strip_is_drawn_in_shades_and_told_in_words() -> None:
    chart = timeline_lines(timeline())
    assert chart is not None
    assert (chart["stretches"], chart["lost"], chart["left_out"]) == (45, 1, "")
    first, second = chart["strips"]
    assert first["paths"] == [(1, "M3 0h1v1h-1z"), (3, "M1 0h2v1h-2z")]
    assert first["told"] == "decoder: NPU 0 of here: in calls 50% of 1m 30s"
    assert (second["told"], second["lost"]) == ("decoder: NPU 1 of here: in calls 51% of 1m 30s, lost at 6s", [3.0])


def test_of_many_devices_those_are_shown_that_worked_least() -> None:
    chart = timeline_lines(timeline(STRIPS + 10))
    assert chart is not None
    assert [strip["label"] for strip in chart["strips"]] == [f"decoder: NPU {n} of here" for n in range(STRIPS)]
    assert chart["left_out"] == "64 of 74, those that worked least"


def test_nothing_recorded_is_no_chart(output: Path) -> None:
    assert timeline_lines(None) is None
    assert timeline_lines(Timeline(seconds=0, stretch=1, lanes=())) is None
    assert "When the devices" not in Path(make_report(str(output))).read_text()
    (output / "_run" / "timeline.json").write_text('{"of": "another version"}')
    assert "When the devices" not in Path(make_report(str(output))).read_text()


def test_the_page_has_the_timeline_with_labels_that_are_read_out(output: Path) -> None:
    (output / "_run" / "timeline.json").write_text(timeline().model_dump_json())
    page = Path(make_report(str(output))).read_text()
    labels = re.findall(r'<svg class="decoder" [^>]*role="img" aria-label="([^"]*)"', page)
    assert labels[0] == "decoder: NPU 0 of here: in calls 50% of 1m 30s"
    assert len(labels) == 2
    assert "a red line is a worker that was lost" in page


@pytest.fixture
def summary(output: Path) -> Summary:
    return summarize(str(output))


def with_tars(summary: Summary, sizes: list[int]) -> Summary:
    """The same with shards of these sizes."""
    (first, *_) = [one for one in summary.stats if one.tar is not None]
    shards: list[ShardStats] = []
    for number, size in enumerate(sizes):
        assert first.tar is not None
        tar = first.tar.model_copy(update={"bytes": size})
        given = {"shard": number, "tar": tar, "bytes": size // 2, "successes": 10, "task": "inpaint"}
        shards.append(first.model_copy(update=given))
    return Summary(**{**summary.__dict__, "stats": shards})


def test_sizes_of_few_files_are_a_sentence_and_of_many_a_histogram(summary: Summary) -> None:
    few = file_sizes(summary)
    assert few is not None
    assert few["tars"] is None
    assert few["words"].startswith("4 tars, ")
    assert {bar["label"] for bar in few["images"]} >= {"an image of text2img", "an image of inpaint"}
    many = file_sizes(with_tars(summary, [1_000_000 + 10_000 * number for number in range(100)]))
    assert many is not None
    assert many["tars"]["words"] == "sizes of 100 tars: half of them have 1.5 MB or less"
    assert [column["height"] for column in many["tars"]["columns"]] == [100.0] * 20
    assert many["tars"]["columns"][0]["words"] == "5 of 1 MB to 1.05 MB"
    assert many["words"].startswith("100 tars, 150 MB in all, from 1 MB to 1.99 MB; 100 indexes, ")
    assert [bar["words"] for bar in many["images"]] == ["74.8 kB"]


def test_the_page_has_the_histogram_with_its_words(output: Path) -> None:
    stats = json.loads((output / "00000_stats.json").read_text())
    for shard in range(10, 30):
        stats["tar"]["bytes"] = 10_000 * shard
        (output / f"{shard:05d}_stats.json").write_text(json.dumps({**stats, "shard": shard}))
    page = Path(make_report(str(output))).read_text()
    assert 'role="img" aria-label="sizes of 24 tars: half of them have' in page
    assert page.count("<rect ") == 8


def test_scores_of_all_tasks_are_drawn_over_the_same_values() -> None:
    tally = Tally("clip_similarity", "", (-1.0, 1.0))
    for task, values in (("text2img", [0.10, 0.11, 0.30]), ("inpaint", [0.2])):
        table = pa.table({"key": [str(v) for v in values], "task": [task] * len(values), "clip_similarity": values})
        tally.add(0, table)
    inpaint, text2img = score_charts(tally)
    assert (inpaint["task"], inpaint["words"]) == ("inpaint", "1 image, mean 0.200")
    assert (text2img["task"], text2img["words"]) == ("text2img", "3 images, mean 0.170")
    assert (inpaint["low"], inpaint["high"]) == (text2img["low"], text2img["high"])
    assert float(text2img["low"]) <= 0.1
    assert float(text2img["high"]) >= 0.3
    heights = [column["height"] for column in text2img["columns"]]
    assert sum(height > 0 for height in heights) in (2, 3)
    assert max(heights) == 100
    low, high = float(text2img["low"]), float(text2img["high"])
    assert text2img["mean"] == pytest.approx(len(heights) * (0.17 - low) / (high - low), abs=0.6)
