"""An output against references of every kind, by the demo checkpoint's own CLIP."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.evaluation.distances import cmmd
from jobs.evaluation.job import Distances, Wish, evaluate
from jobs.evaluation.statistics import load, save
from jobs.exporting.job import export
from jobs.exporting.selection import Choice
from manifests.config import RunConfig
from manifests.embeddings import kept_clip
from manifests.errors import UsageError
from tests.unit import finished_run
from tests.unit.jobs.exporting.outputs import wish as export_wish

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    config = finished_run.make_config(tmp_path_factory.mktemp("evaluated"), checkpoint="demo")
    finished_run.run(config)
    return config


def distances(output: str, reference: str, **given: Any) -> Distances:
    found = evaluate(replace(Wish(output, Choice(), reference=reference), **given), "cpu").distances
    assert found is not None
    return found


def test_the_same_images_are_at_no_distance_however_they_are_kept(plain: RunConfig, tmp_path: Path) -> None:
    for layout in ("folder", "webdataset"):
        export(export_wish(plain.output, tmp_path / layout, layout), lambda _: None)
    statistics = str(tmp_path / "s.npz")
    evaluate(Wish(plain.output, Choice(), save=statistics), "cpu")
    for reference in (plain.output, str(tmp_path / "folder"), str(tmp_path / "webdataset"), statistics):
        found = distances(plain.output, reference)
        assert found.images == found.reference_images == 10, reference
        assert found.cmmd == pytest.approx(0, abs=1e-4), reference
        assert found.frechet == pytest.approx(0, abs=1e-5), reference
    some = distances(plain.output, statistics, choice=Choice("id = 'r1'"))
    assert some.images == 2
    assert some.cmmd > 1e-3


def test_embeddings_that_are_kept_are_read_and_not_made(plain: RunConfig, tmp_path: Path) -> None:
    kept = finished_run.make_config(tmp_path, checkpoint="demo", keep_clip=True)
    finished_run.run(kept)
    statistics = str(tmp_path / "s.npz")
    evaluate(Wish(kept.output, Choice(), save=statistics), "cpu")
    rows = np.concatenate([kept_clip.read(kept.output, shard)[1] for shard in range(2)])
    assert load(statistics).count >= len(rows)
    assert load(statistics).sample.shape[1] == rows.shape[1]
    np.testing.assert_allclose(load(statistics).sample[: len(rows)], rows, atol=2e-3)


def test_what_cannot_be_compared_gets_a_sentence(plain: RunConfig, tmp_path: Path) -> None:
    statistics = str(tmp_path / "s.npz")
    evaluate(Wish(plain.output, Choice(), save=statistics), "cpu")
    known = load(statistics)
    assert cmmd(known.sample, known.sample) == pytest.approx(0, abs=1e-9)
    save(replace(known, encoder="0123"), str(tmp_path / "other.npz"))
    save(replace(known, mean=np.zeros(3)), str(tmp_path / "narrow.npz"))
    for name in ("empty", "text"):
        (tmp_path / name).mkdir()
    (tmp_path / "text" / "a.png").write_text("no image")
    for reference, said in (
        ("other.npz", r"was made by another encoder \(0123, not"),
        ("narrow.npz", "holds embeddings of 3 numbers, the encoder of the output gives"),
        ("gone.npz", "no such file"),
        ("empty", "no images, tars or run"),
        ("gone", "gone"),
        ("text", r"a\.png cannot be read as an image"),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            distances(plain.output, str(tmp_path / reference))
        assert "\n" not in str(caught.value)
