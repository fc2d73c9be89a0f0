"""All rows of an output page by page: filters and words against the indexes themselves, and images from their tars."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pyarrow.parquet as pq
import pytest

from jobs.output.catalog import Catalog, query_of
from manifests.errors import StorageError
from tests.unit.jobs.large_output import picture


def rows_of(output: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(output.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize(
    ("words", "task", "status"),
    [
        ("", "", ""),
        ("", "", "success"),
        ("", "text2img", ""),
        ("", "inpaint", "success"),
        ("", "inpaint", "failed_to_load"),
        ("", "", "failed_to_validate"),
        ("A CAT", "", ""),
        ("red 000000001", "text2img", "success"),
        ("nothing has this", "", ""),
        ("", "no-such-task", "success"),
    ],
)
def test_pages_together_are_what_the_indexes_hold(output: Path, words: str, task: str, status: str) -> None:
    wanted = [
        row["key"]
        for row in rows_of(output)
        if task in ("", row["task"])
        and status in ("", row["status"])
        and all(word in f"{row['key']} {row['id']} {row['caption']}".lower() for word in words.lower().split())
    ]
    catalog, query = Catalog(str(output)), query_of(words, task, status)
    for count in (1, 3, 100):
        found, total = [], 0
        for first in range(0, max(1, len(wanted)) + count, count):
            total, rows = catalog.page(query, first, count)
            assert len(rows) <= count
            found += [row["key"] for row in rows]
        assert (found, total) == (wanted, len(wanted))


def test_it_knows_what_can_be_chosen(output: Path) -> None:
    catalog = Catalog(str(output))
    assert catalog.tasks == ["img2img", "inpaint", "interpolate", "text2img"]
    assert catalog.statuses == ["success", "failed_to_load", "failed_to_validate"]


def test_a_row_and_its_image_are_found_by_key(output: Path) -> None:
    catalog = Catalog(str(output))
    for row in rows_of(output):
        found = catalog.row(row["key"])
        assert found is not None
        assert {**found, "lang": None} == {**row, "lang": None, "shard": int(row["key"][:5])}
        if row["status"] == "success":
            assert catalog.image(found).startswith(b"\x89PNG")
        else:
            with pytest.raises(StorageError, match="has no image of"):
                catalog.image(found)
    assert catalog.row("000099999") is None
    assert catalog.row("no key") is None


def test_the_last_page_of_a_large_output_reads_one_index(large_output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog, looked = Catalog(large_output), []
    wanted = Catalog._wanted
    monkeypatch.setattr(
        Catalog, "_wanted", lambda self, query, stats: looked.append(stats) or wanted(self, query, stats)
    )
    total, rows = catalog.page(query_of("", "", "success"), 99_780, 60)
    assert (total, len(rows), len(looked)) == (99_800, 20, 1)
    assert rows[-1]["id"] == "request-99998"
    assert catalog.image(rows[-1]) == picture(99_998)


def test_words_are_looked_for_in_all_of_a_large_output(large_output: str) -> None:
    total, rows = Catalog(large_output).page(query_of("REQUEST-70123 thing", "", ""), 0, 60)
    assert (total, [row["id"] for row in rows]) == (1, ["request-70123"])


def test_shards_that_are_sealed_meanwhile_come_with_the_next_look(output: Path, tmp_path: Path) -> None:
    away = tmp_path / "00003_stats.json"
    shutil.move(output / away.name, away)
    catalog = Catalog(str(output))
    assert catalog.page(query_of("", "", ""), 0, 60)[0] == 7
    shutil.move(away, output / away.name)
    catalog.refresh()
    assert catalog.page(query_of("", "", ""), 0, 60)[0] == 8


def test_a_damaged_index_is_told(output: Path) -> None:
    (output / "00001.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(StorageError, match=r"00001\.parquet cannot be read"):
        Catalog(str(output)).page(query_of("", "img2img", "success"), 0, 60)


@pytest.fixture
def remote(output: Path) -> Iterator[str]:
    """The same output on an object store."""
    url = f"memory://catalog-{uuid4().hex}"
    fs = fsspec.filesystem("memory")
    fs.put(str(output), url.removeprefix("memory:/"), recursive=True)
    yield url
    fs.rm(url.removeprefix("memory:/"), recursive=True)


def test_an_object_store_is_no_different(remote: str, output: Path) -> None:
    catalog, here = Catalog(remote), Catalog(str(output))
    total, rows = catalog.page(query_of("", "", "success"), 0, 60)
    assert total == 6
    assert [catalog.image(row) for row in rows] == [here.image(row) for row in rows]
