"""An output to export: nine images in four shards, two rows without an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.exporting.job import Wish
from jobs.exporting.selection import Choice
from tests.unit import finished_run
from tests.unit.finished_run import ROWS


def make_output(folder: Path, **settings: Any) -> str:
    rows = [{**row, "rating": place / 2, "note": f"it's {place}"} for place, row in enumerate(ROWS)]
    config = finished_run.make_config(folder, rows, shard_size=3, width=128, **settings)
    finished_run.run(config, broken=["r2"])
    return config.output


def wish(output: str, to: Path, layout: str = "webdataset", **given: Any) -> Wish:
    choice = Choice(*(given.pop(name, None) for name in ("where", "limit", "shuffle")))
    settings = {"resize": None, "rows_per_file": 4, "licence": None, "title": None, "name": None, **given}
    if layout == "huggingface":
        settings["licence"] = settings["licence"] or "cc-by-4.0"
    return Wish(output, str(to), layout, choice, **settings)
