"""Columns of scores: their names and order, and that nothing that is no number gets into one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from manifests import scores
from manifests.config import RunConfig
from tests.unit.workers.sample_batches import make_batch
from workers.scoring.columns import columns_of, cosines, with_scores
from workers.stages.encode import encode_images


def checkpoint(folder: Path, **settings: int) -> str:
    place = folder / "kandinsky-2-1-prior" / "image_encoder"
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps(settings))
    return str(folder)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("none", ()),
        ("all", scores.SCORES),
        ("image_phash,clip_similarity", ("clip_similarity", "image_phash")),
        ("prior_fidelity", ("prior_fidelity",)),
    ],
)
def test_scores_are_named_in_any_order_and_kept_in_one(words: str, names: tuple[str, ...]) -> None:
    assert RunConfig(manifest=("m",), output="o", scores=words).score_names == names
    assert scores.parse(scores.spelled(names)) == names


def test_all_of_them_has_the_aesthetic_one_where_its_weights_are_named() -> None:
    config = RunConfig(manifest=("m",), output="o", scores="all", aesthetic_weights="w.pth")
    assert config.score_names == scores.NAMES
    assert scores.parse(scores.spelled(scores.NAMES)) == scores.NAMES


def test_the_similarity_is_named_after_the_encoder(tmp_path: Path) -> None:
    real = checkpoint(
        tmp_path / "real", hidden_size=1024, num_hidden_layers=24, patch_size=14, projection_dim=768, image_size=224
    )
    large = checkpoint(tmp_path / "bigG", hidden_size=1664, num_hidden_layers=48, patch_size=14, projection_dim=1280)
    assert [field.name for field in columns_of(scores.SCORES, real).values()] == [
        "clip_similarity_vitl14",
        *scores.SCORES[1:],
    ]
    assert columns_of([scores.AESTHETIC], real)[scores.AESTHETIC].name == "aesthetic_score_laion_v2"
    for other in ("demo", "random", large):
        assert [field.name for field in columns_of(scores.SCORES, other).values()] == list(scores.SCORES)


def test_they_come_last_in_their_order_and_null_where_nothing_gave_one() -> None:
    batch = make_batch("text2img", [{}, {}, {"status": "failed_to_load"}], extra_fields=[pa.field("note", pa.string())])
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    batch = batch.add("pixels", pa.large_binary(), {i: one.tobytes() for i, one in enumerate(pixels)})
    batch = encode_images(batch, RunConfig(manifest=("m",), output="o"))
    batch = batch.add("clip_similarity", pa.float32(), {0: 0.25, 1: float("nan")})
    samples = with_scores(batch, columns_of(scores.SCORES, "demo")).samples
    assert samples.column_names[-4:] == list(scores.SCORES)
    assert samples.column("clip_similarity").to_pylist() == [0.25, None, None]
    assert samples.column("prior_fidelity").null_count == 3
    first, second, third = samples.column("image_phash").to_pylist()
    assert (len(first), len(second), third) == (16, 16, None)
    assert all(b"description" in (samples.schema.field(name).metadata or {}) for name in scores.SCORES)


def test_a_batch_that_never_saw_a_device_has_the_same_columns() -> None:
    batch = make_batch("text2img", [{"status": "failed_to_validate"}])
    assert with_scores(batch, columns_of(scores.SCORES, "demo")).samples.column_names[-4:] == list(scores.SCORES)


def test_vectors_without_direction_or_number_have_no_cosine() -> None:
    one, zero, broken = np.array([3.0, 4.0]), np.zeros(2), np.array([np.nan, 1])
    assert cosines([one, one, one, one], [2 * one, zero, broken, None]) == [pytest.approx(1), None, None, None]
    assert cosines([one], [np.array([-4.0, 3.0], np.float32)]) == [pytest.approx(0)]
