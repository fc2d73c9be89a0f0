"""Inputs that lay inline in the manifest stand beside their results on page, sheet and server, as files do."""

from __future__ import annotations

import http.client
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.output.manifest_rows import ManifestRows
from jobs.reporting.contact_sheet import make_contact_sheet
from jobs.reporting.inputs import read_inputs
from jobs.reporting.report import make_report
from manifests.config import RunConfig
from tests.unit import finished_run
from tests.unit.jobs.reporting.serving import serving
from tests.unit.replay_rows import inline, replay_rows
from workers.stages.fetching import UnusableError


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """A finished run of all tasks: a file beside the manifest, and inline images."""
    Image.open(io.BytesIO(inline(9)["bytes"])).save(tmp_path / "photo.png")
    config = finished_run.make_config(tmp_path, replay_rows())
    finished_run.run(config)
    return config


def records(config: RunConfig) -> list[dict[str, Any]]:
    return [row for path in sorted(Path(config.output).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def contents(config: RunConfig, manifest: ManifestRows | None = None) -> dict[str, list[bytes | str]]:
    """What is read of each row that has inputs, in words where there is no picture."""
    found = read_inputs(records(config), manifest or ManifestRows(config.manifest))
    return {
        row["prompt"] or row["id"]: [str(one) if isinstance(one, UnusableError) else one for _, one in inputs]
        for row, inputs in found
        if inputs
    }


def test_each_row_has_its_own_inputs(config: RunConfig, tmp_path: Path) -> None:
    rows = records(config)
    found = {
        row["id"]: [content for _, content in inputs]
        for row, inputs in read_inputs(rows, ManifestRows(config.manifest))
    }
    assert found["i1"] == [inline(1)["bytes"]]
    assert found["p0"] == [inline(2)["bytes"], inline(3, "L")["bytes"]]
    text, image = found["m0"]
    assert (str(text), image) == ("a cat", inline(4)["bytes"])
    assert (tmp_path / "photo.png").read_bytes() in [content for one in found.values() for content in one]


def test_page_and_sheet_show_them(config: RunConfig, tmp_path: Path) -> None:
    page = Path(make_report(config.output)).read_text()
    for label, count in (("source: oil", 2), ("source: hat", 1), ("mask: hat", 1), ("0.7: a cat", 1)):
        assert page.count(f'alt="{label}" loading') == count
    assert "inline in the manifest" not in page
    made = Image.open(make_contact_sheet(config.output, str(tmp_path / "sheet.png"), 99))
    source = Image.open(io.BytesIO(inline(2)["bytes"]))
    small = np.asarray(source.resize((round(source.width * 144 / source.height), 144), Image.Resampling.LANCZOS))
    sheet = np.asarray(made.convert("RGB"))
    starts = zip(*np.where((sheet == small[0, 0]).all(-1)), strict=True)
    assert any(np.array_equal(sheet[y : y + 144, x : x + small.shape[1]], small) for y, x in starts)


def test_the_server_shows_them(config: RunConfig) -> None:
    def get(port: int, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()

    with serving(config.output) as port:
        (row,) = json.loads(get(port, "/rows?task=inpaint")[1])["rows"]
        assert [one["label"] for one in row["pictures"]] == ["source", "mask", "result"]
        for one in row["pictures"]:
            status, body = get(port, f"/small/{one['place']}")
            assert status == 200
            assert Image.open(io.BytesIO(body)).size == ((80, 70) if one["label"] != "result" else (64, 64))
        (mix,) = json.loads(get(port, "/rows?task=interpolate")[1])["rows"]
        assert [(one["note"], one["place"] is None) for one in mix["pictures"]] == [
            ("a cat", True),
            ("", False),
            ("", False),
        ]


def test_a_manifest_that_is_gone_or_another_one_now_is_told(config: RunConfig, tmp_path: Path) -> None:
    manifest = Path(config.manifest[0])
    kept = tmp_path / "kept"
    shutil.move(manifest, kept)
    gone = contents(config)["hat"][0]
    assert isinstance(gone, str)
    assert gone.startswith("it lay inline in the manifest, and that cannot be read")
    table = pq.read_table(kept)
    pq.write_table(table.set_column(0, "id", [[f"{name} of another" for name in table["id"].to_pylist()]]), manifest)
    assert contents(config)["hat"] == ["it lay inline in the manifest, and its row is another one now"] * 2
    pq.write_table(table.slice(0, 3), manifest)
    assert contents(config)["hat"][0] == "it lay inline in the manifest, and that has 3 rows now"
    assert "it lay inline in the manifest" in Path(make_report(config.output)).read_text()


def test_only_so_much_of_a_manifest_is_read_for_a_page(config: RunConfig) -> None:
    assert "too much before it" in str(contents(config, ManifestRows(config.manifest, budget=100))["hat"][0])
    (file,) = (Path(one) for one in config.manifest)
    whole = pq.read_metadata(file).row_group(0).total_byte_size
    # All rows of a file cost about what the file holds, because the reader goes over it once.
    assert isinstance(contents(config, ManifestRows(config.manifest, budget=1.01 * whole))["hat"][0], bytes)
