"""The picture of the report page: made by its recipe, without folders of the machine, and small enough for a README."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from infra import report_picture
from jobs.reporting.report import make_report

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.skipif(not any(map(shutil.which, report_picture.BROWSERS)), reason="no Chromium on this machine")
def test_the_recipe_makes_a_picture_of_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "tests" / "data" / "output_0_1" / "output", tmp_path / "output")
    monkeypatch.setattr(report_picture, "SEARCH", "cat")
    monkeypatch.setattr(report_picture, "SIZE", "64 x 64")
    page = Path(make_report(str(tmp_path / "output")))
    picture = report_picture.screenshot(page, [f"{tmp_path}/"])
    times = json.loads((tmp_path / "output" / "_run" / "times.json").read_text())
    assert times["buckets"], "the picture ends where their times are"
    assert picture.width == report_picture.WIDTH
    assert 600 < picture.height < 3000


def test_the_picture_in_the_readme_is_small() -> None:
    file = ROOT / "infra" / "report.webp"
    assert file.stat().st_size <= report_picture.MOST_BYTES
    assert Image.open(file).width == report_picture.SHOWN_WIDTH
