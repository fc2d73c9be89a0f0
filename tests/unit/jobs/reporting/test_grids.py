"""Grids of a product: their headers, what stands in each cell, and that there are never too many."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from jobs.output.sample import draw_sample
from jobs.output.summary import summarize
from jobs.reporting import grids
from jobs.reporting.grids import Grids, lay_out
from jobs.reporting.report import make_report
from tests.unit.jobs.output.test_product import PROMPTS, SEEDS, finished, product_rows


def laid_out(output: str) -> Grids:
    summary = summarize(output)
    product = draw_sample(output, summary.stats, summary.planned["requests"], 0, 6).product
    assert product is not None
    return lay_out(output, product)


def test_every_image_stands_under_its_headers(tmp_path: Path) -> None:
    rows = product_rows()
    found = laid_out(finished(tmp_path, rows).output)
    assert (found.count, found.is_whole, found.down, found.across) == (3, True, "way", "seed")
    assert [grid.title for grid in found.grids] == [f"subject: {prompt}" for prompt in PROMPTS]
    seen = []
    for grid in found.grids:
        assert grid.columns == [str(seed) for seed in SEEDS]
        assert grid.rows == ["0", "1"]
        for way, line in zip(grid.rows, grid.cells, strict=True):
            for seed, record in zip(grid.columns, line, strict=True):
                assert record is not None
                (row,) = [row for row in rows if row["id"] == record["id"]]
                assert (f"subject: {row['subject']}", str(row["way"]), str(row["seed"])) == (grid.title, way, seed)
                seen.append(record["id"])
    assert sorted(seen) == sorted(row["id"] for row in rows)


def test_no_more_are_shown_than_a_page_has_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = finished(tmp_path, product_rows()).output
    monkeypatch.setattr(grids, "COLUMNS", 3)
    monkeypatch.setattr(grids, "CELLS", 13)
    found = laid_out(output)
    assert [(len(grid.rows), len(grid.columns)) for grid in found.grids] == [(2, 3), (2, 3)]
    assert not found.is_whole


def test_two_factors_are_one_grid(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": f"{prompt}{seed}", "task": "text2img", "prompt": prompt, "seed": seed, "num_images": 1}
        for prompt in PROMPTS
        for seed in SEEDS
    ]
    (grid,) = laid_out(finished(tmp_path, rows).output).grids
    assert (grid.title, grid.rows, len(grid.columns)) == ("", list(PROMPTS), 4)


def test_the_page_has_them_as_tables_with_headers(tmp_path: Path) -> None:
    config = finished(tmp_path, product_rows(), broken=["r5"])
    # A shard that is not there yet leaves its cells empty.
    (Path(config.output) / "00005_stats.json").unlink()
    page = Path(make_report(config.output)).read_text()
    assert 'Grids <span class="soft">subject (3) x way (2) x seed (4)</span>' in page
    tables = re.findall(r"<table><caption>.*?</table>", page.replace("\n", ""))
    assert len(tables) == 3
    assert re.findall(r'<th scope="col">(.*?)</th>', tables[0]) == [str(seed) for seed in SEEDS]
    assert re.findall(r'<th scope="row">(.*?)</th>', tables[0]) == ["0", "1"]
    assert [table.count('<img src="data:') for table in tables] == [7, 8, 4]
    assert '<span class="text">not finite</span>' in tables[0]
    assert tables[2].count("not made yet") == 4
    assert "Grids" not in Path(make_report(finished_plain(tmp_path))).read_text()


def finished_plain(folder: Path) -> str:
    (folder / "plain").mkdir()
    rows = [{"id": f"r{i}", "task": "text2img", "prompt": f"p {i}", "num_images": 1} for i in range(4)]
    return finished(folder / "plain", rows).output
