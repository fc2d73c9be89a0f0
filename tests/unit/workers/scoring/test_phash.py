"""The perceptual hash is that of the library whose hashes others publish, and stands for what an image looks like."""

from __future__ import annotations

import io
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image

from workers.scoring.phash import phash

ROOT = Path(__file__).resolve().parents[4]
PICTURES = sorted((ROOT / "manifests" / "examples").rglob("*.jpg")) + sorted(
    (ROOT / "tests" / "goldens").rglob("*.png")
)


def distance(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_it_is_the_hash_of_imagehash(path: Path) -> None:
    image = Image.open(path).convert("RGB")
    assert phash(image) == str(imagehash.phash(image))


def test_there_are_many_pictures_to_hold_it_against() -> None:
    assert len(PICTURES) > 30


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (17, 90, 201)])
def test_a_picture_of_one_colour_has_a_hash_that_rounding_does_not_change(colour: tuple[int, int, int]) -> None:
    assert phash(Image.new("RGB", (64, 64), colour)) in ("0000000000000000", "8000000000000000")
    assert phash(Image.new("RGB", (64, 64), colour)) == phash(Image.new("RGB", (128, 192), colour))


def test_what_looks_the_same_is_near_and_what_does_not_is_far() -> None:
    cat, coffee = (
        Image.open(ROOT / f"manifests/examples/photos/{name}.jpg").convert("RGB") for name in ("cat", "coffee")
    )
    sink = io.BytesIO()
    cat.resize((cat.width // 2, cat.height // 2)).save(sink, "JPEG", quality=40)
    assert distance(phash(cat), phash(Image.open(sink))) <= 4
    assert distance(phash(cat), phash(coffee)) >= 16
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8))
    assert distance(phash(cat), phash(noise)) >= 12
