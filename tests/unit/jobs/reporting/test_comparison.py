"""Two outputs side by side by id, whatever their keys are, and what the two runs and rows have otherwise."""

from __future__ import annotations

import http.client
import json
import re
from pathlib import Path
from typing import Any

import pytest

from jobs.output.catalog import Catalog, query_of
from jobs.reporting.comparison import Against
from jobs.reporting.report import make_report
from manifests.errors import UsageError
from tests.unit import finished_run
from tests.unit.jobs.reporting.serving import serving


def finished(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> str:
    folder.mkdir()
    config = finished_run.make_config(folder, rows, **settings)
    finished_run.run(config, broken=["r1"] if settings else [])
    return config.output


@pytest.fixture
def outputs(tmp_path: Path) -> tuple[str, str]:
    """Two outputs: the second has other steps and shards, no `r0`, and `r1` failed there."""
    rows = list(finished_run.ROWS)
    ours = finished(tmp_path / "few", rows)
    theirs = finished(tmp_path / "many", rows[1:], steps=50, shard_size=3, guidance_scale=7.5)
    return ours, theirs


def test_rows_are_found_by_their_id_under_whatever_key(outputs: tuple[str, str]) -> None:
    ours, theirs = (Catalog(output) for output in outputs)
    rows = ours.page(query_of("", "", ""), 0, 100)[1]
    found = theirs.like(rows)
    for row, other in zip(rows, found, strict=True):
        if row["id"] == "r0":
            assert other is None
        else:
            assert other is not None
            assert (other["id"], other["image_index"]) == (row["id"], row["image_index"])
    assert any(other is not None and other["key"] != row["key"] for row, other in zip(rows, found, strict=True))
    assert ours.like(rows) == rows


def test_what_the_runs_have_otherwise_is_listed(outputs: tuple[str, str]) -> None:
    against = Against.of(Catalog(outputs[0]).summary, outputs[1])
    apart = {name: (ours, theirs) for name, ours, theirs in against.apart}
    assert apart["steps"] == ("–", "50")
    assert apart["guidance scale"] == ("–", "7.5")
    assert apart["shard size"] == ("4", "3")
    assert "output" not in apart
    # Both are called out: the folders' names are the same.
    assert against.names == outputs


def test_the_page_shows_both_images_and_leaves_the_report_alone(outputs: tuple[str, str]) -> None:
    page = Path(make_report(outputs[0], against=outputs[1]))
    assert page == Path(outputs[0]) / "_run" / "against.html"
    assert not (page.parent / "report.html").exists()
    text = page.read_text()
    images = {name: len(re.findall(f'alt="{re.escape(name)}: ', text)) for name in outputs}
    assert images == {outputs[0]: 10, outputs[1]: 7}
    assert "no row of this id" in text
    assert "not finite" in text
    assert "steps 100 | 50; guidance_scale 4 | 7.5" in text
    assert not re.search(r'(src|href)="(?!data:|#)', text)


def test_the_server_shows_both_images(outputs: tuple[str, str]) -> None:
    theirs = Catalog(outputs[1])

    def get(port: int, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()

    with serving(outputs[0], outputs[1]) as port:
        assert outputs[1].encode() in get(port, "/")[1]
        rows = json.loads(get(port, "/rows?words=r3&status=success")[1])["rows"]
        assert len(rows) == 2
        for row in rows:
            assert [one["label"] for one in row["pictures"]] == list(outputs)
            assert "steps 100 | 50" in dict(row["details"])["otherwise there"]
            status, body = get(port, f"/full/{row['pictures'][1]['place']}")
            (other,) = theirs.like([{"key": row["key"], "id": "r3", "image_index": int(dict(row["details"])["image"])}])
            assert other is not None
            assert (status, body) == (200, theirs.image(other))
        (lost, *_) = json.loads(get(port, "/rows?words=r0&status=success")[1])["rows"]
        assert (lost["pictures"][1]["place"], lost["pictures"][1]["note"]) == (None, "no row of this id")
        assert get(port, f"/full/{lost['key']}/against") == (404, b"no row of this id")
    with serving(outputs[0]) as port:
        assert get(port, "/full/000000000/against")[0] == 404


def test_another_output_that_is_none_is_told(outputs: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run was begun there"):
        make_report(outputs[0], against=str(tmp_path))
