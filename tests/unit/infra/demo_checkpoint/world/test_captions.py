"""Captions of the demo checkpoint's world: they name what is there, in each language, and filler names nothing."""

from __future__ import annotations

import numpy as np
import pytest

from infra.demo_checkpoint.world import captions, scenes
from infra.demo_checkpoint.world.captions import LANGUAGES, WORDS
from infra.demo_checkpoint.world.scenes import COLOURS, OBJECTS, SCENERIES, Scene


def names(name: str, language: str) -> list[str]:
    """All forms of an object's name without articles, in lower case."""
    forms = [form for one in WORDS["objects"][name][language].split(";") for form in one.split("|")]
    return [form.strip().split(" ", 1)[-1].lower() if language == "de" else form.strip().lower() for form in forms]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_vocabulary_has_every_object_colour_and_scenery(language: str) -> None:
    assert all(WORDS["objects"][name][language] for name in OBJECTS)
    assert all(WORDS["colours"][name][language] for name in COLOURS)
    assert all(WORDS[kind][name][language] for name in SCENERIES for kind in ("sceneries", "in_scenery"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_name_stands_for_two_objects(language: str) -> None:
    every = [form for name in OBJECTS for form in set(names(name, language))]
    assert len(every) == len(set(every))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_caption_names_every_object(language: str) -> None:
    rng = np.random.default_rng(0)
    worn = {"hat": ["шляпой", "шляпе"], "crown": ["короне"]}
    for _ in range(600):
        scene = scenes.sample(rng)
        text = captions.caption(scene, rng, language).lower()
        for name in scene.objects:
            forms = names(name, language) + (worn.get(name, []) if language == "ru" else [])
            assert any(form in text for form in forms), (name, text)


def test_a_caption_tells_the_ground_where_it_says_so() -> None:
    rng = np.random.default_rng(1)
    told = [captions.told(Scene(("cat",), "", ("green",)), rng, "en") for _ in range(300)]
    assert all(("green" in text.lower()) == flag for text, flag in told)
    assert 0.65 < np.mean([flag for _, flag in told]) < 0.85


def test_wordings_are_many() -> None:
    rng = np.random.default_rng(2)
    scene = Scene(("cat", "hat"), "on", ("red",))
    assert len({captions.caption(scene, rng) for _ in range(500)}) > 450


def test_what_says_nothing_names_no_object_and_no_ground() -> None:
    rng = np.random.default_rng(3)
    texts = [captions.says_nothing(rng).lower() for _ in range(500)]
    assert 0.4 < texts.count("") / len(texts) < 0.6
    words = {word.strip(",.") for text in texts for word in text.split()}
    for language in LANGUAGES:
        for name in OBJECTS:
            assert not words & set(names(name, language))
        assert not words & {form for colour in COLOURS for form in WORDS["colours"][colour][language].split(";")}


def test_plain_captions_are_right_in_grammar() -> None:
    assert captions.plain_caption("apple", "orange", "en") == "an apple on an orange background"
    assert captions.plain_caption("cat", "red", "de") == "eine Katze auf rotem Hintergrund"
    assert captions.plain_caption("apple", "orange", "de") == "ein Apfel auf orangem Hintergrund"
    assert captions.plain_caption("cat", "pink", "de") == "eine Katze auf rosa Hintergrund"
    assert captions.plain_caption("cat", "blue", "ru") == "кот на синем фоне"
