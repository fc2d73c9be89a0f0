"""Scenes in words: many wordings, with filler, adjectives and styles, in English, German and Russian."""

from __future__ import annotations

import numpy as np

from infra.demo_checkpoint.words import (
    ADJECTIVES,
    COLOUR_NAMES,
    EMPTY_WORDS,
    IN_SCENERY,
    LANGUAGES,
    OBJECT_NAMES,
    OPENINGS,
    SCENERY_NAMES,
    STYLES,
)
from infra.demo_checkpoint.world import Scene

Rng = np.random.Generator


def _one(rng: Rng, choices: tuple[str, ...] | list[str]) -> str:
    return choices[rng.integers(len(choices))]


def _name(rng: Rng, name: str, language: str) -> tuple[str, str]:
    """An object's name as subject and in the case that follows "with": with its article in German, else without."""
    names = OBJECT_NAMES[name][language].split(";")
    chosen = names[0] if rng.random() < 0.6 else _one(rng, names)
    subject, _, other = chosen.partition("|")
    return subject, other or subject


def _colour(rng: Rng, colour: str, language: str, form: int = 0) -> str:
    """A colour's name. German: form 1 adds the ending -em, 2 -e; Russian: forms as in the table."""
    name = _one(rng, COLOUR_NAMES[colour][language].split(";"))
    if language == "de":
        return name if colour in ("pink", "purple") and name in ("rosa", "pink", "lila") else name + ("", "em", "e")[form]
    if language == "ru":
        stem, *endings = name.split("|")
        return stem + endings[form]
    return name


def _article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def _noun(rng: Rng, name: str, language: str, *, extra: str = "", other: bool = False) -> str:
    """An object with an adjective or two, in the way the language has it."""
    words = _name(rng, name, language)[other]
    if rng.random() < 0.25:
        adjective = _one(rng, ADJECTIVES[language])
        extra = f"{adjective} {extra}".strip()
        if language == "en" and rng.random() < 0.3:
            extra = f"{_one(rng, ADJECTIVES[language])} {extra}"
    if language == "de":
        article, _, noun = words.partition(" ")
        ending = "en" if other else {"eine": "e"}.get(article, _one(rng, ["er", "es"]))
        extra = " ".join(w + ending if w in ADJECTIVES["de"] else w for w in extra.split())
        words = f"{article} {extra} {noun}" if extra else words
        if not other and rng.random() < 0.35:  # without the article
            words = words.partition(" ")[2]
        return words
    words = f"{extra} {words}".strip()
    if language == "en" and rng.random() < 0.8:
        u = rng.random()
        return "the " + words if u < 0.12 else "a " + words if u < 0.2 else _article(words)
    return words


def _on_ground(rng: Rng, scene: Scene, language: str) -> str:
    """The ground after an object: "on a red ground"."""
    if scene.ground[0] in IN_SCENERY:
        return _one(rng, IN_SCENERY[scene.ground[0]][language])
    if len(scene.ground) == 2:
        a, b = (_colour(rng, c, language, 1) for c in scene.ground)
        over = scene.split == "rows"
        if language == "en":
            return _one(
                rng,
                [f"{a} above and {b} below", f"{a} at the top, {b} at the bottom", f"on a ground of {a} over {b}"]
                if over
                else [f"{a} on the left and {b} on the right", f"on a ground half {a}, half {b}", f"{a} left, {b} right"],
            )
        if language == "de":
            a, b = (_colour(rng, c, language) for c in scene.ground)
            return f"oben {a}, unten {b}" if over else f"links {a}, rechts {b}"
        a, b = (_colour(rng, c, language) for c in scene.ground)
        return f"сверху {a}, снизу {b}" if over else f"слева {a}, справа {b}"
    if language == "en":
        c = _colour(rng, scene.ground[0], language)
        ground = _one(rng, ["background", "ground", "backdrop", "background", "background"])
        return _one(rng, [f"on {_article(c)} {ground}", f"on {c}", f"with {_article(c)} {ground}", f"in front of {_article(c)} {ground}", f"{c} {ground}", f"on {_article(c)} {ground}"])
    if language == "de":
        to, plain = _colour(rng, scene.ground[0], language, 1), _colour(rng, scene.ground[0], language)
        return _one(rng, [f"auf {to} Grund", f"auf {to} Hintergrund", f"vor {to} Hintergrund", f"auf {plain}", f"Hintergrund {plain}"])
    on, plain = _colour(rng, scene.ground[0], language, 1), _colour(rng, scene.ground[0], language)
    return _one(rng, [f"на {on} фоне", f"на {on} фоне", f"{plain} фон", f"на {on}", f"фон {plain}"])


def _ground_alone(rng: Rng, scene: Scene, language: str) -> str:
    if scene.ground[0] in SCENERY_NAMES:
        return _one(rng, SCENERY_NAMES[scene.ground[0]][language])
    if len(scene.ground) == 2:
        return _on_ground(rng, scene, language)
    plain = _colour(rng, scene.ground[0], language)
    return {
        "en": _one(rng, [plain, f"{_article(plain)} background", f"plain {plain}", f"{plain} ground", f"nothing but {plain}", f"the color {plain}"]),
        "de": _one(rng, [plain, f"nur {plain}", f"{plain}er Hintergrund", f"die Farbe {plain}"]),
        "ru": _one(rng, [plain, f"{plain} фон", f"{plain} цвет"]),
    }[language]


def _pair(rng: Rng, scene: Scene, language: str) -> str:
    a, b = scene.objects
    on = scene.relation == "on"
    first, second = (_noun(rng, o, language) for o in (a, b))
    if language == "en":
        compound = f"{_name(rng, a, 'en')[0]} {_name(rng, b, 'en')[0]}"
        either = [f"{first} and {second}", f"{first} with {second}", f"{second} and {first}", _article(compound)]
        if b in ("hat", "crown"):
            return _one(rng, [f"{first} with {second}", f"{first} wearing {second}", f"{first} with {second}", f"{first} in {second}", f"{second} on {first}", f"{second} above {first}", *either])
        if on:
            return _one(rng, [f"{second} above {first}", f"{second} on {first}", f"{first} below {second}", f"{second} on top of {first}", *either])
        return _one(rng, [f"{first} next to {second}", f"{first} beside {second}", f"{first} left of {second}", f"{second} right of {first}", *either])
    with_second = _noun(rng, b, language, other=True)
    with_first = _noun(rng, a, language, other=True)
    if language == "de":
        either = [f"{first} und {second}", f"{first} mit {with_second}", f"{second} und {first}"]
        said = f"{second} über {with_first}" if on else f"{first} neben {with_second}"
        return _one(rng, [said, said, *either])
    either = [f"{first} и {second}", f"{first} с {with_second}", f"{second} и {first}"]
    said = f"{second} над {with_first}" if on else f"{first} рядом с {with_second}"
    worn = [f"{first} со шляпой", f"{first} в шляпе"] if b == "hat" else [f"{first} в короне"] if b == "crown" else []
    return _one(rng, [said, said, *worn, *either])


_PLACE = {
    "en": {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"},
    "de": {"left": "links", "right": "rechts", "top": "oben", "bottom": "unten"},
    "ru": {"left": "слева", "right": "справа", "top": "сверху", "bottom": "снизу"},
}
_SIZE = {
    "en": {"small": ("small", "tiny"), "big": ("big", "large", "huge", "giant")},
    "de": {"small": ("sehr klein",), "big": ("sehr groß",)},
    "ru": {"small": ("маленький",), "big": ("большой",)},
}


def _single(rng: Rng, scene: Scene, language: str) -> str:
    told = []
    if scene.size:
        told.append(_one(rng, _SIZE[language][scene.size]))
    if scene.tint:
        told.append(_colour(rng, scene.tint, language, 2 if language == "de" else 0))
    words = _noun(rng, scene.objects[0], language, extra=" ".join(told))
    if scene.place and rng.random() < 0.7:
        words += " " + _PLACE[language][scene.place]
    return words


def _gibberish(rng: Rng) -> str:
    return "".join(_one(rng, list("abcdefghiklmnoprstuvwz")) for _ in range(rng.integers(3, 8)))


def told(scene: Scene, rng: Rng, language: str | None = None) -> tuple[str, bool]:
    """A caption of a scene, and whether it tells the ground; a single colour goes unsaid in a quarter of them.

    Args:
        scene: what the picture holds.
        rng: draws the wording.
        language: one of `LANGUAGES`; None draws one, half of all English.
    """
    language = language or _one(rng, ["en", "en", "de", "ru"])
    ground_told = True
    if not scene.objects:
        words = _ground_alone(rng, scene, language)
    else:
        words = _pair(rng, scene, language) if len(scene.objects) == 2 else _single(rng, scene, language)
        plain = len(scene.ground) == 1 and scene.ground[0] not in IN_SCENERY
        ground_told = bool(rng.random() < (0.75 if plain else 0.9))
        if ground_told:
            ground = _on_ground(rng, scene, language)
            words = f"{ground}: {words}" if rng.random() < 0.06 else f"{words}{_one(rng, [' ', ' ', ' ', ', '])}{ground}"
    if rng.random() < 0.35:
        words = f"{_one(rng, OPENINGS[language])} {words}"
    if rng.random() < 0.4:
        words += "".join(", " + _one(rng, STYLES[language]) for _ in range(rng.integers(1, 4)))
    if rng.random() < 0.06:
        parts = words.split(" ")
        parts.insert(int(rng.integers(len(parts) + 1)), _gibberish(rng))
        words = " ".join(parts)
    if rng.random() < 0.1:
        words += "."
    return (words if rng.random() < 0.5 else words.lower()), ground_told


def caption(scene: Scene, rng: Rng, language: str | None = None) -> str:
    """A caption of a scene: `told` without the flag."""
    return told(scene, rng, language)[0]


def says_nothing(rng: Rng) -> str:
    """A caption that tells nothing of the picture: half of them empty."""
    if rng.random() < 0.5:
        return ""
    language = _one(rng, ["en", "en", "de", "ru"])
    if rng.random() < 0.7:
        return _one(rng, EMPTY_WORDS[language])
    return ", ".join(_one(rng, STYLES[language]) for _ in range(rng.integers(1, 4)))


__all__ = ["LANGUAGES", "caption", "says_nothing"]
