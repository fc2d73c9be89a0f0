"""The judge of pictures: it finds in the world's own pictures what was painted, and is not fooled by the ground."""

from __future__ import annotations

import numpy as np
import pytest

from infra.demo_checkpoint.world import judge, scenes
from infra.demo_checkpoint.world.scenes import COLOURS, OBJECTS, Scene


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_is_its_own_best_match_on_any_ground(name: str) -> None:
    rng = np.random.default_rng(OBJECTS.index(name))
    for colour in rng.choice(list(COLOURS), 2, replace=False):
        picture = scenes.render(Scene((name,), "", (str(colour),)), rng)
        assert judge.best_object(picture) == name


@pytest.mark.parametrize("colour", COLOURS)
def test_the_ground_is_named_whatever_stands_on_it(colour: str) -> None:
    rng = np.random.default_rng(5)
    for name in ("frog", "ghost", "rocket"):
        picture = scenes.render(Scene((name,), "", (colour,), size="big"), rng)
        assert judge.border_colour(picture)[0] == colour


def test_both_objects_of_nearly_every_pair_are_the_two_best_matches() -> None:
    rng = np.random.default_rng(9)
    found = []
    while len(found) < 30:
        scene = scenes.sample(rng)
        if judge.sees_both(scene):
            found.append(judge.best_objects(scenes.render(scene, rng), 2) == set(scene.objects))
    assert sum(found) >= 0.85 * len(found)


def test_a_blurred_picture_is_still_recognised_and_an_empty_ground_matches_nothing() -> None:
    rng = np.random.default_rng(7)
    picture = scenes.render(Scene(("cat",), "", ("purple",)), rng)
    blurred = picture.reshape(32, 4, 32, 4, 3).mean((1, 3)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    assert judge.best_object(blurred) == "cat"
    empty = scenes.render(Scene((), "", ("purple",)), rng)
    assert max(judge.object_scores(empty).values()) < 0.3 < judge.object_scores(picture)["cat"]
