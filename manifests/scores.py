"""Scores of images: their names, and the columns of the index that hold them.

What they say is told with each; how they are computed, in workers/scoring. A score that cannot be had is null, never
NaN and never a reason to fail a row. Columns of scores come behind the manifest's own, in the order of SCORES.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa

#: Needs the checkpoint's CLIP, on the device that makes the image.
BY_CLIP: tuple[str, ...] = ("clip_similarity", "clip_similarity_source", "prior_fidelity")

SCORES: tuple[str, ...] = (*BY_CLIP, "image_phash")

ALL, NONE = "all", "none"

#: What `--scores` takes.
PATTERN = rf"^({ALL}|{NONE}|({'|'.join(SCORES)})(,({'|'.join(SCORES)}))*)$"

_MEANINGS = {
    "clip_similarity": "cosine of image and prompt by the checkpoint's CLIP; of an interpolation the weighted mean "
    "over its conditions",
    "clip_similarity_source": "cosine of the image and the one it was made from, by CLIP; img2img and inpaint only",
    "prior_fidelity": "cosine of the prior's image embedding and CLIP's of the image: how true the decoder was to it",
    "image_phash": "perceptual hash of 64 bits in hex, as imagehash.phash; near duplicates differ in few bits",
}

#: Encoder -> what its users call the similarity by it (COYO, LAION).
_VITL14 = {"hidden_size": 1024, "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768}

#: The settings of an image encoder that `fields` asks for.
ENCODER_SETTINGS: tuple[str, ...] = tuple(_VITL14)


def needs_clip(names: Collection[str]) -> bool:
    """True where one of these scores needs the checkpoint's CLIP."""
    return not set(BY_CLIP).isdisjoint(names)


def parse(words: str) -> tuple[str, ...]:
    """The scores that `--scores` names, each once, in their order."""
    if words in (ALL, NONE):
        return SCORES if words == ALL else ()
    return tuple(name for name in SCORES if name in words.split(","))


def spelled(names: Sequence[str]) -> str:
    """The one way to write some scores that a run keeps in its records."""
    return ",".join(name for name in SCORES if name in names) or NONE


def fields(names: Sequence[str], encoder: dict[str, object]) -> dict[str, pa.Field]:
    """Score -> its column.

    Args:
        encoder: ENCODER_SETTINGS of the checkpoint's image encoder; OpenAI's ViT-L/14 is in the column's name.
    """
    columns = {}
    for name in names:
        column = "clip_similarity_vitl14" if name == "clip_similarity" and encoder == _VITL14 else name
        kind = pa.string() if name == "image_phash" else pa.float32()
        columns[name] = pa.field(column, kind, metadata={"description": _MEANINGS[name]})
    return columns


#: Every name that such a column may have.
COLUMNS: frozenset[str] = frozenset({*SCORES, "clip_similarity_vitl14"})
