"""The noise contract on the job itself: batch size changes no image; the plain pipelines redo a row of each task."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.ray.conftest import ROOT, SMALL, Job
from workers import device
from workers.checkpoints import local_folder

pytestmark = [pytest.mark.ray, pytest.mark.models]

Pixels = np.ndarray[Any, Any]
PHOTO = ROOT / "manifests" / "examples" / "photos" / "cat.jpg"
PROMPTS = ["a cat", "an oil painting of a castle, dark", "fog", "a very bright red robot standing near a lake"]


def _mask(index: int) -> Image.Image:
    mask = np.zeros((64, 64), np.uint8)
    mask[: 20 + 8 * index, 10:] = 255
    return Image.fromarray(mask)


def _inline(image: Image.Image) -> dict[str, Any]:
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return {"bytes": sink.getvalue(), "path": None}


def _manifest_rows() -> list[dict[str, Any]]:
    photo = {"bytes": None, "path": str(PHOTO)}
    rows: list[dict[str, Any]] = []
    for index, prompt in enumerate(PROMPTS):
        shared = {**SMALL, "prompt": prompt, "seed": 2**63 + index}
        rows += [
            {
                **shared,
                "id": f"text2img-{index}",
                "task": "text2img",
                "negative_prompt": "blurry" if index > 1 else None,
            },
            {**shared, "id": f"img2img-{index}", "task": "img2img", "image": photo, "strength": 1.0},
            {**shared, "id": f"inpaint-{index}", "task": "inpaint", "image": photo, "mask": _inline(_mask(index))},
            {
                **shared,
                "id": f"interpolate-{index}",
                "task": "interpolate",
                "conditions": [
                    {"text": prompt, "image": None, "weight": 0.3},
                    {"text": None, "image": photo, "weight": 0.7},
                ],
            },
        ]
    return rows


@pytest.fixture(scope="module")
def images_by_batch_size(
    make_job: Callable[[Sequence[dict[str, Any]]], Job], tmp_path_factory: pytest.TempPathFactory
) -> dict[int, dict[str, Pixels]]:
    """Every image of the same manifest by id, made at batch sizes 4, 2 and 1."""
    job = make_job(_manifest_rows())
    made: dict[int, dict[str, Pixels]] = {}
    for size in (4, 2, 1):
        output = tmp_path_factory.mktemp(f"batches-of-{size}") / "out"
        ended = job.run(output, "--batch-size", str(size))
        assert ended.returncode == 0, ended.stderr
        made[size] = _images(output)
        shutil.rmtree(output)
    return made


def _images(output: Path) -> dict[str, Pixels]:
    ids = {
        row["key"]: row["id"]
        for index in output.glob("*.parquet")
        for row in pq.read_table(index, columns=["key", "id"]).to_pylist()
    }
    found: dict[str, Pixels] = {}
    for path in output.glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".png"):
                    content = tar.extractfile(member)
                    assert content is not None
                    found[ids[member.name.removesuffix(".png")]] = np.asarray(Image.open(content))
    return found


def _assert_same(left: Pixels, right: Pixels) -> None:
    assert left.std() > 10, "a flat image would equal anything"
    assert np.abs(left.astype(int) - right.astype(int)).max() <= 1


@pytest.mark.parametrize("size", [1, 2])
def test_batch_sizes_agree_for_every_image(images_by_batch_size: dict[int, dict[str, Pixels]], size: int) -> None:
    fours = images_by_batch_size[4]
    assert len(fours) == 16
    assert images_by_batch_size[size].keys() == fours.keys()
    for name, image in fours.items():
        _assert_same(images_by_batch_size[size][name], image)


def test_the_plain_pipelines_redo_a_row_of_every_task(images_by_batch_size: dict[int, dict[str, Pixels]]) -> None:
    device.take("cpu")
    from tests.plain import PlainPipelines
    from workers import kandinsky

    plain = PlainPipelines(local_folder("demo", kandinsky.parameter_shapes))
    photo = Image.open(PHOTO).convert("RGB")
    defaults = {"guidance_scale": 4.0, "prior_guidance_scale": 4.0, "negative_prompt": None, "image_index": 0}
    for row in _manifest_rows()[8:12]:
        resolved = {**defaults, **row, "image": photo}
        if row["task"] == "img2img":
            resolved["guidance_scale"] = 7.0
        if row["task"] == "inpaint":
            resolved["mask"] = _mask(2)
        if row["task"] == "interpolate":
            resolved["conditions"] = [(row["prompt"], 0.3), (photo, 0.7)]
        _assert_same(images_by_batch_size[4][row["id"]], plain.make(resolved))
