"""The world of the demo checkpoint: scenes are what they say, and are painted from the sheet, without the font."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from infra.demo_checkpoint.world import scenes
from infra.demo_checkpoint.world.scenes import COLOURS, OBJECTS, SCENERIES, WORN, Scene


def drawn(count: int) -> list[Scene]:
    rng = np.random.default_rng(0)
    return [scenes.sample(rng) for _ in range(count)]


def test_one_sprite_per_object_and_no_two_alike() -> None:
    sprites = scenes.sprites()
    assert set(sprites) == set(OBJECTS)
    assert len({sprite.tobytes() for sprite in sprites.values()}) == len(OBJECTS)
    assert all(0.1 < np.mean(np.asarray(sprite)[..., 3] > 127) < 0.95 for sprite in sprites.values())


def test_scenes_have_the_shares_that_the_training_wants() -> None:
    found = drawn(4000)
    pairs = sum(len(scene.objects) == 2 for scene in found) / len(found)
    assert abs(pairs - scenes.PAIRS) < 0.03
    assert {name for scene in found for name in scene.objects} == set(OBJECTS)
    assert {name for scene in found for name in scene.ground} == {*COLOURS, *SCENERIES}
    assert sum(not scene.objects for scene in found) / len(found) < 0.12


def test_what_is_worn_is_above_what_wears_it() -> None:
    worn = [scene for scene in drawn(3000) if set(scene.objects) & set(WORN) and len(scene.objects) == 2]
    assert len(worn) > 100
    for scene in worn:
        if not set(scene.objects) <= set(WORN):
            assert scene.relation == "on"
            assert scene.objects[1] in WORN


def test_the_same_numbers_paint_the_same_picture() -> None:
    scene = Scene(("cat", "hat"), "on", ("night",))
    first, again = (scenes.render(scene, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, scenes.render(scene, np.random.default_rng(4)))


@pytest.mark.parametrize(("width", "height"), [(128, 128), (192, 128), (256, 256)])
def test_pictures_have_the_size_asked_for(width: int, height: int) -> None:
    for scene in drawn(20):
        picture = scenes.render(scene, np.random.default_rng(0), width, height)
        assert picture.shape == (height, width, 3)
        assert picture.dtype == np.uint8


def test_a_place_is_where_it_says() -> None:
    for place, rows, columns in (("left", slice(None), slice(0, 64)), ("bottom", slice(64, None), slice(None))):
        scene = Scene(("apple",), "", ("white",), place=place, size="small")
        with_apple = scenes.render(scene, np.random.default_rng(1)).astype(int)
        without = scenes.render(dataclasses.replace(scene, objects=()), np.random.default_rng(1)).astype(int)
        painted = np.abs(with_apple - without).sum(2) > 30
        assert painted[rows, columns].sum() > 0.95 * painted.sum() > 0


def test_a_tint_takes_the_objects_own_colours_away() -> None:
    plain, tinted = (
        scenes.render(Scene(("apple",), "", ("white",), tint=tint), np.random.default_rng(2)) for tint in ("", "blue")
    )
    centre = (slice(56, 72), slice(56, 72))
    assert plain[centre].mean((0, 1)).argmax() == 0
    assert tinted[centre].mean((0, 1)).argmax() == 2
