"""Scores are counted as NumPy counts them, whatever shards they come in, and the ends are the ends of all of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from jobs.output.scores import BINS, ENDS, Tallies, Tally


def index(values: list[float | None], first: int, task: str = "text2img", column: str = "clip_similarity") -> pa.Table:
    keys = [f"{first + i:04d}" for i in range(len(values))]
    return pa.table({"key": keys, "task": [task] * len(keys), column: pa.array(values, pa.float32())})


def tallied(*tables: pa.Table) -> Tally:
    tallies = Tallies()
    for shard, table in enumerate(tables):
        tallies.add(shard, table)
    (found,) = tallies.product()
    return found


@pytest.fixture
def values() -> list[float]:
    return [float(value) for value in np.random.default_rng(0).normal(0.2, 0.1, 500).astype(np.float32)]


def test_counts_and_means_are_those_of_all_shards_by_task(values: list[float]) -> None:
    found = tallied(index(values[:200], 0), index(values[200:400], 200), index(values[400:], 400, "inpaint"))
    spread = found.tasks["text2img"]
    assert spread.count == spread.bins.sum() == 400
    assert spread.mean == pytest.approx(np.mean(values[:400]))
    assert spread.bins.tolist() == np.histogram(values[:400], np.linspace(-1, 1, BINS + 1))[0].tolist()
    assert found.tasks["inpaint"].count == 100


def test_both_ends_are_those_of_all_shards_the_furthest_first(values: list[float]) -> None:
    found = tallied(index(values[:250], 0), index(values[250:], 250))
    in_order = np.argsort(values)
    assert [row["key"] for row in found.worst] == [f"{i:04d}" for i in in_order[:ENDS]]
    assert [row["key"] for row in found.best] == [f"{i:04d}" for i in in_order[::-1][:ENDS]]
    assert all(row["shard"] == (int(row["key"]) >= 250) for row in [*found.best, *found.worst])


def test_images_without_a_score_are_not_counted_and_a_score_that_none_has_is_not_there() -> None:
    found = tallied(index([0.1, None, 0.3], 0), index([None], 3))
    assert found.tasks["text2img"].count == 2
    assert [row["key"] for row in found.best] == ["0002", "0000"]
    tallies = Tallies()
    tallies.add(0, index([None], 0))
    assert tallies.product() == []


def test_what_lies_beyond_the_range_is_counted_at_its_ends() -> None:
    found = tallied(index([-3.0, 12.0, 5.0], 0, column="aesthetic_score"))
    bins = found.tasks["text2img"].bins
    assert (bins[0], bins[-1], bins.sum()) == (1, 1, 3)


def test_hashes_are_no_scores_that_can_be_counted() -> None:
    tallies = Tallies()
    tallies.add(0, pa.table({"key": ["0"], "task": ["text2img"], "image_phash": ["0" * 16]}))
    assert tallies.product() == []
