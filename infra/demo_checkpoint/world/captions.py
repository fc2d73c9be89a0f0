"""Scenes in words: many wordings, with filler, adjectives and styles, in English, German and Russian.

The vocabulary is `words.json`. Names are apart by ";". German names carry their article: "nominative|dative",
Russian ones as "nominative|instrumental". A Russian colour is its stem and the endings that are added to it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infra.demo_checkpoint.world.scenes import WORN, Scene

Rng = np.random.Generator

LANGUAGES = ("en", "de", "ru")
WORDS: dict[str, Any] = json.loads((Path(__file__).parent / "words.json").read_text())

_PLACE = {
    "en": {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"},
    "de": {"left": "links", "right": "rechts", "top": "oben", "bottom": "unten"},
    "ru": {"left": "слева", "right": "справа", "top": "сверху", "bottom": "снизу"},
}
_SIZE = {
    "en": {"small": ("small", "tiny"), "big": ("big", "large", "huge", "giant")},
    "de": {"small": ("klein", "winzig"), "big": ("groß", "riesig")},
    "ru": {"small": ("маленький",), "big": ("большой",)},
}


def _one(rng: Rng, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _language(rng: Rng) -> str:
    return _one(rng, ("en", "en", "de", "ru"))


def _names(name: str, language: str) -> list[str]:
    return [one.strip() for one in WORDS["objects"][name][language].split(";")]


def _name(rng: Rng, name: str, language: str) -> tuple[str, str]:
    """An object's name as subject and in the case that follows "with"."""
    names = _names(name, language)
    subject, _, other = (names[0] if rng.random() < 0.6 else _one(rng, names)).partition("|")
    return subject, other or subject


def _colour(rng: Rng, colour: str, language: str, form: int = 0) -> str:
    """A colour's name. German: form 1 ends in -em, 2 in -e; Russian: forms as in the vocabulary."""
    name = _one(rng, WORDS["colours"][colour][language].split(";"))
    if language == "de":
        fixed = form == 0 or name in ("rosa", "pink", "lila")
        return name if fixed else name.removesuffix("e") + ("", "em", "e")[form]
    if language == "ru":
        stem, *endings = name.split("|")
        return stem + endings[form]
    return name


def _article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def _noun(rng: Rng, name: str, language: str, *, extra: str = "", other: bool = False) -> str:
    """An object with an adjective or two and an article, in the way the language has it; `other` as after "with"."""
    words = _name(rng, name, language)[other]
    adjectives = WORDS["adjectives"][language]
    if rng.random() < 0.25:
        extra = f"{_one(rng, adjectives)} {extra}".strip()
        if language == "en" and rng.random() < 0.3:
            extra = f"{_one(rng, adjectives)} {extra}"
    if language == "de":
        article, _, noun = words.partition(" ")
        ending = "en" if other else {"eine": "e"}.get(article, _one(rng, ["er", "es"]))
        inflected = {*adjectives, *_SIZE["de"]["small"], *_SIZE["de"]["big"]}
        extra = " ".join(w + ending if w in inflected else w for w in extra.split())
        inner = f"{extra} {noun}".strip()
        return inner if not other and rng.random() < 0.35 else f"{article} {inner}"
    words = f"{extra} {words}".strip()
    if language == "en" and rng.random() < 0.8:
        u = rng.random()
        return f"the {words}" if u < 0.12 else f"a {words}" if u < 0.2 else _article(words)
    return words


def _two_colours(rng: Rng, scene: Scene, language: str) -> str:
    a, b = (_colour(rng, c, language) for c in scene.ground)
    rows = scene.split == "rows"
    if language == "de":
        return f"oben {a}, unten {b}" if rows else f"links {a}, rechts {b}"
    if language == "ru":
        return f"сверху {a}, снизу {b}" if rows else f"слева {a}, справа {b}"
    if rows:
        return _one(
            rng,
            [f"{a} above and {b} below", f"{a} at the top, {b} at the bottom", f"on a ground of {a} over {b}"],
        )
    return _one(
        rng, [f"{a} on the left and {b} on the right", f"on a ground half {a}, half {b}", f"{a} left, {b} right"]
    )


def _on_ground(rng: Rng, scene: Scene, language: str) -> str:
    """The ground after an object: "on a red ground"."""
    if scene.ground[0] in WORDS["in_scenery"]:
        return _one(rng, WORDS["in_scenery"][scene.ground[0]][language])
    if len(scene.ground) == 2:
        return _two_colours(rng, scene, language)
    to, plain = (_colour(rng, scene.ground[0], language, form) for form in (1 if language != "en" else 0, 0))
    if language == "de":
        said = [f"auf {to} Grund", f"auf {to} Hintergrund", f"vor {to} Hintergrund", f"auf {plain}"]
        return _one(rng, [*said, f"Hintergrund {plain}"])
    if language == "ru":
        return _one(rng, [f"на {to} фоне", f"на {to} фоне", f"{plain} фон", f"на {to}", f"фон {plain}"])
    a = _article(plain)
    ground = _one(rng, ["background", "ground", "backdrop", "background", "background"])
    said = [f"on {a} {ground}", f"on {plain}", f"with {a} {ground}", f"in front of {a} {ground}", f"{plain} {ground}"]
    return _one(rng, [*said, f"on {a} {ground}"])


def _ground_alone(rng: Rng, scene: Scene, language: str) -> str:
    if scene.ground[0] in WORDS["sceneries"]:
        return _one(rng, WORDS["sceneries"][scene.ground[0]][language])
    if len(scene.ground) == 2:
        return _two_colours(rng, scene, language)
    plain = _colour(rng, scene.ground[0], language)
    if language == "de":
        return _one(rng, [plain, f"nur {plain}", f"{plain}er Hintergrund", f"die Farbe {plain}"])
    if language == "ru":
        return _one(rng, [plain, f"{plain} фон", f"{plain} цвет"])
    said = [f"{_article(plain)} background", f"plain {plain}", f"{plain} ground", f"nothing but {plain}"]
    return _one(rng, [plain, *said, f"the color {plain}"])


def _pair(rng: Rng, scene: Scene, language: str) -> str:
    a, b = scene.objects
    on, worn = scene.relation == "on", b in WORN
    first, second = (_noun(rng, o, language) for o in (a, b))
    either = {"en": "and", "de": "und", "ru": "и"}[language]
    said = [f"{first} {either} {second}", f"{second} {either} {first}"]
    if language != "en":
        with_first, with_second = (_noun(rng, o, language, other=True) for o in (a, b))
        over, by, having = {"de": ("über", "neben", "mit"), "ru": ("над", "рядом с", "с")}[language]
        said += [f"{first} {having} {with_second}"]
        said += 2 * [f"{second} {over} {with_first}" if on else f"{first} {by} {with_second}"]
        if language == "ru" and worn:
            said += [f"{first} со шляпой", f"{first} в шляпе"] if b == "hat" else [f"{first} в короне"]
        return _one(rng, said)
    said += [f"{first} with {second}", _article(f"{_name(rng, a, 'en')[0]} {_name(rng, b, 'en')[0]}")]
    if worn:
        said += 2 * [f"{first} with {second}", f"{first} wearing {second}"]
        said += [f"{first} in {second}", f"{second} on {first}", f"{second} above {first}"]
    elif on:
        said += [f"{second} above {first}", f"{second} on {first}", f"{first} below {second}"]
        said += [f"{second} on top of {first}"]
    else:
        said += [f"{first} next to {second}", f"{first} beside {second}"]
        said += [f"{first} left of {second}", f"{second} right of {first}"]
    return _one(rng, said)


def _single(rng: Rng, scene: Scene, language: str) -> str:
    said = []
    if scene.size:
        said.append(_one(rng, _SIZE[language][scene.size]))
    if scene.tint:
        said.append(_colour(rng, scene.tint, language, 2 if language == "de" else 0))
    words = _noun(rng, scene.objects[0], language, extra=" ".join(said))
    if scene.place and rng.random() < 0.7:
        words += " " + _PLACE[language][scene.place]
    return words


def _dressed(rng: Rng, words: str, language: str) -> str:
    """With what says nothing of the picture: openings, styles, a word that nobody knows, a full stop."""
    if rng.random() < 0.35:
        words = f"{_one(rng, WORDS['openings'][language])} {words}"
    if rng.random() < 0.4:
        words += "".join(f", {_one(rng, WORDS['styles'][language])}" for _ in range(rng.integers(1, 4)))
    if rng.random() < 0.06:
        parts = words.split(" ")
        unknown = "".join(_one(rng, "abcdefghiklmnoprstuvwz") for _ in range(rng.integers(3, 8)))
        parts.insert(int(rng.integers(len(parts) + 1)), unknown)
        words = " ".join(parts)
    if rng.random() < 0.1:
        words += "."
    return words if rng.random() < 0.5 else words.lower()


def told(scene: Scene, rng: Rng, language: str | None = None) -> tuple[str, bool]:
    """A caption of a scene, and whether it tells the ground; a single colour goes unsaid in a quarter of them.

    Args:
        scene: what the picture holds.
        rng: draws the wording.
        language: one of `LANGUAGES`; None draws one, half of all English.
    """
    language = language or _language(rng)
    if not scene.objects:
        return _dressed(rng, _ground_alone(rng, scene, language), language), True
    words = _pair(rng, scene, language) if len(scene.objects) == 2 else _single(rng, scene, language)
    plain = len(scene.ground) == 1 and scene.ground[0] not in WORDS["in_scenery"]
    ground_told = bool(rng.random() < (0.75 if plain else 0.9))
    if ground_told:
        ground = _on_ground(rng, scene, language)
        words = f"{ground}: {words}" if rng.random() < 0.06 else f"{words}{_one(rng, [' ', ' ', ' ', ', '])}{ground}"
    return _dressed(rng, words, language), ground_told


def caption(scene: Scene, rng: Rng, language: str | None = None) -> str:
    """A caption of a scene: `told` without the flag."""
    return told(scene, rng, language)[0]


def plain_caption(name: str, colour: str, language: str) -> str:
    """The plainest caption of one object on one colour: "a cat on a red background"; tests and measures use it."""
    subject = _names(name, language)[0].partition("|")[0]
    said = WORDS["colours"][colour][language].split(";")[0]
    if language == "en":
        return f"{_article(subject)} on {_article(said)} background"
    if language == "de":
        ending = "" if said in ("rosa", "pink", "lila") else "em"
        return f"{subject} auf {said.removesuffix('e') if ending else said}{ending} Hintergrund"
    stem, _, on, *_ = said.split("|")
    return f"{subject} на {stem}{on} фоне"


def says_nothing(rng: Rng) -> str:
    """A caption that tells nothing of the picture, as negative prompts do: half of them empty."""
    if rng.random() < 0.5:
        return ""
    language = _language(rng)
    if rng.random() < 0.7:
        return _one(rng, WORDS["empty"][language])
    return ", ".join(_one(rng, WORDS["styles"][language]) for _ in range(rng.integers(1, 4)))
