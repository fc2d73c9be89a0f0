"""What a scorer makes of a batch: which pairs it compares, and that a row that cannot be scored keeps its image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from manifests.batch import CONDITION_INPUT_TYPE, Batch
from manifests.embeddings import kept_clip
from manifests.scores import AESTHETIC, SCORES
from tests.unit.workers.sample_batches import make_batch
from workers.fault_tolerance.guard import Guard
from workers.scoring.aesthetic import Predictor
from workers.scoring.scorer import Scorer

#: Of this model: texts are colours, and so are images.
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "yellow": (255, 255, 0)}


class Colours:
    """A CLIP for which an image is its mean colour."""

    def __init__(self) -> None:
        self.calls = 0

    def texts(self, texts: Sequence[str]) -> Any:
        return np.array([COLOURS[text] for text in texts], np.float32)

    def images(self, images: Sequence[Image.Image]) -> Any:
        self.calls += 1
        return np.array([np.asarray(image).mean((0, 1)) for image in images], np.float32)


def painted(colour: str, edge: int = 64) -> bytes:
    return Image.new("RGB", (edge, edge), COLOURS[colour]).tobytes()


def scored(batch: Batch, model: Any, names: Sequence[str] = SCORES) -> dict[str, list[Any]]:
    guard = Guard("scores", "failed_to_generate", 60.0)
    done = Scorer(names, model, guard, 8)(batch)
    assert done.seconds["scores"] >= 0
    return {name: done.samples.column(name).to_pylist() for name in done.samples.column_names}


def near(value: float, far: float = 1e-6) -> Any:
    return pytest.approx(value, abs=far)


def test_an_image_is_held_against_its_prompt_and_what_the_prior_meant() -> None:
    batch = make_batch("text2img", [{"prompt": "red"}, {"prompt": "green"}, {"prompt": "yellow"}])
    batch = batch.add("pixels", pa.large_binary(), {i: painted("red") for i in range(3)})
    batch = batch.add("image_embeds", pa.list_(pa.float32(), 3), {0: [1, 0, 0], 1: [0, 2, 0]})
    found = scored(batch, Colours())
    assert found["clip_similarity"] == [near(1), near(0), near(0.5**0.5)]
    assert found["prior_fidelity"] == [near(1), near(0), None]
    assert found["clip_similarity_source"] == [None] * 3


def test_img2img_and_inpaint_are_held_against_their_source_too() -> None:
    for task in ("img2img", "inpaint"):
        batch = make_batch(task, [{"prompt": "red"}, {"prompt": ""}])
        batch = batch.add("pixels", pa.large_binary(), {0: painted("red"), 1: painted("red")})
        batch = batch.add("image_pixels", pa.large_binary(), {0: painted("yellow"), 1: painted("green")})
        found = scored(batch, Colours())
        assert found["clip_similarity_source"] == [near(0.5**0.5), near(0)]
        assert found["clip_similarity"] == [near(1), None]  # Without words there is nothing to be like.


def test_an_interpolation_is_held_against_its_conditions_by_their_weights() -> None:
    conditions = [
        [
            {"text": "red", "pixels": None, "weight": 0.75},
            {"text": None, "pixels": painted("green", 8), "weight": 0.25},
        ],
        [{"text": "green", "pixels": None, "weight": 2.0}],
        None,
    ]
    batch = make_batch("interpolate", [{"prompt": ""}, {"prompt": ""}, {"prompt": ""}])
    batch = batch.add("pixels", pa.large_binary(), {i: painted("red") for i in range(3)})
    batch = batch.add("condition_inputs", CONDITION_INPUT_TYPE, dict(enumerate(conditions)))
    assert scored(batch, Colours())["clip_similarity"] == [near(0.75), near(0), None]


def test_only_what_is_asked_for_is_computed() -> None:
    batch = make_batch("img2img", [{"prompt": "red"}]).add("pixels", pa.large_binary(), {0: painted("red")})
    batch = batch.add("image_pixels", pa.large_binary(), {0: painted("red")})
    model = Colours()
    found = scored(batch, model, ["clip_similarity"])
    assert model.calls == 1
    assert not {"prior_fidelity", "clip_similarity_source"} & found.keys()


def test_embeddings_are_kept_with_length_1_where_they_have_a_direction() -> None:
    batch = make_batch("text2img", [{"prompt": "red"}, {"prompt": "red"}, {"status": "failed_to_embed"}])
    black = bytes(3 * 64 * 64)
    batch = batch.add("pixels", pa.large_binary(), {0: painted("yellow"), 1: black})
    guard = Guard("scores", "failed_to_generate", 60.0)
    column = Scorer((), Colours(), guard, 8, keep=True)(batch).samples[kept_clip.COLUMN]
    assert column.type == pa.list_(pa.float16(), 3)
    assert column.to_pylist() == [[near(0.5**0.5, 1e-3), near(0.5**0.5, 1e-3), 0], None, None]
    nothing = batch.add("pixels", pa.large_binary(), {0: black, 1: black})
    assert kept_clip.COLUMN not in Scorer((), Colours(), guard, 8, keep=True)(nothing).samples.column_names


def test_the_predictor_sees_the_direction_of_the_embedding() -> None:
    batch = make_batch("text2img", [{"prompt": "red"}, {"prompt": "red"}])
    batch = batch.add("pixels", pa.large_binary(), {0: painted("green"), 1: bytes(3 * 64 * 64)})
    guard, likes_green = Guard("scores", "failed_to_generate", 60.0), Predictor(np.array([0.0, 2.0, 0.0]), 3.5)
    done = Scorer([AESTHETIC], Colours(), guard, 8, predictor=likes_green)(batch)
    assert done.samples[AESTHETIC].to_pylist() == [near(5.5), None]


def test_a_row_that_raises_keeps_its_image_and_its_batch_mates_their_scores() -> None:
    class Refuses(Colours):
        def images(self, images: Sequence[Image.Image]) -> Any:
            if any(image.getpixel((0, 0)) == COLOURS["green"] for image in images):
                raise RuntimeError("out of memory")
            return super().images(images)

    batch = make_batch("text2img", [{"prompt": "red"}, {"prompt": "red"}, {"status": "failed_to_embed"}])
    batch = batch.add("pixels", pa.large_binary(), {0: painted("red"), 1: painted("green")})
    found = scored(batch, Refuses())
    assert found["status"] == ["success", "success", "failed_to_embed"]
    assert found["clip_similarity"] == [near(1), None, None]
    assert found["pixels"][1] is not None


def test_what_the_model_gives_that_is_no_number_is_null() -> None:
    class Broken(Colours):
        def images(self, images: Sequence[Image.Image]) -> Any:
            return np.full((len(images), 3), np.nan, np.float32)

    batch = make_batch("text2img", [{"prompt": "red"}]).add("pixels", pa.large_binary(), {0: painted("red")})
    assert scored(batch, Broken())["clip_similarity"] == [None]
