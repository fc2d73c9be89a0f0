"""Scores of images: their names, and the columns of the index that hold them.

What they say is told with each; how they are computed, in workers/scoring. A score that cannot be had is null, never
NaN and never a reason to fail a row. Columns of scores come behind the manifest's own, in the order of NAMES.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa

#: Of LAION's predictor, whose weights are the user's to bring.
AESTHETIC = "aesthetic_score"

#: Needs the checkpoint's CLIP, on the device that makes the image.
BY_CLIP: tuple[str, ...] = ("clip_similarity", "clip_similarity_source", "prior_fidelity", AESTHETIC)

#: In the order of their columns.
NAMES: tuple[str, ...] = (*BY_CLIP, "image_phash")

#: Those that need nothing of the user.
SCORES: tuple[str, ...] = tuple(name for name in NAMES if name != AESTHETIC)

ALL, NONE = "all", "none"

#: What `--scores` takes.
PATTERN = rf"^({ALL}|{NONE}|({'|'.join(NAMES)})(,({'|'.join(NAMES)}))*)$"

_MEANINGS = {
    "clip_similarity": "cosine of image and prompt by the checkpoint's CLIP; of an interpolation the weighted mean "
    "over its conditions",
    "clip_similarity_source": "cosine of the image and the one it was made from, by CLIP; img2img and inpaint only",
    "prior_fidelity": "cosine of the prior's image embedding and CLIP's of the image: how true the decoder was to it",
    AESTHETIC: "how well people like it, 1 to 10, by LAION's aesthetic predictor from CLIP's embedding of the image",
    "image_phash": "perceptual hash of 64 bits in hex, as imagehash.phash; near duplicates differ in few bits",
}

#: Scores whose columns are called otherwise where OpenAI's ViT-L/14 is the encoder, as its users do (COYO, LAION).
_BY_VITL14 = {"clip_similarity": "clip_similarity_vitl14", AESTHETIC: "aesthetic_score_laion_v2"}

_VITL14 = {"hidden_size": 1024, "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768}

#: The settings of an image encoder that `fields` asks for.
ENCODER_SETTINGS: tuple[str, ...] = tuple(_VITL14)


def needs_clip(names: Collection[str]) -> bool:
    """True where one of these scores needs the checkpoint's CLIP."""
    return not set(BY_CLIP).isdisjoint(names)


def parse(words: str, aesthetic: bool = False) -> tuple[str, ...]:
    """The scores that `--scores` names, each once, in their order.

    Args:
        aesthetic: 'all' has AESTHETIC too.
    """
    if words in (ALL, NONE):
        return () if words == NONE else NAMES if aesthetic else SCORES
    return tuple(name for name in NAMES if name in words.split(","))


def spelled(names: Sequence[str]) -> str:
    """The one way to write some scores that a run keeps in its records."""
    return ",".join(name for name in NAMES if name in names) or NONE


def named_by_encoder(names: Collection[str]) -> bool:
    """True where the name of a column depends on the encoder."""
    return not _BY_VITL14.keys().isdisjoint(names)


def fields(names: Sequence[str], encoder: dict[str, object]) -> dict[str, pa.Field]:
    """Score -> its column.

    Args:
        encoder: ENCODER_SETTINGS of the checkpoint's image encoder; OpenAI's ViT-L/14 is in the column's name.
    """
    columns = {}
    for name in names:
        column = _BY_VITL14.get(name, name) if encoder == _VITL14 else name
        kind = pa.string() if name == "image_phash" else pa.float32()
        columns[name] = pa.field(column, kind, metadata={"description": _MEANINGS[name]})
    return columns


def spellings(name: str) -> tuple[str, ...]:
    """The columns that a score may be in."""
    return (name, *((_BY_VITL14[name],) if name in _BY_VITL14 else ()))


#: Every name that such a column may have.
COLUMNS: frozenset[str] = frozenset({*NAMES, *_BY_VITL14.values()})
