"""Columns that are no request columns and may be meant as one: by their spelling, or by what other tools call it.

A column whose name is not exactly a request column's travels to the index and changes no image. Whoever wrote `Seed` or
`num_inference_steps` meant otherwise, so such names are told; nothing is renamed by guessing.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from manifests.records import GIVEN_EMBEDDINGS
from manifests.requests.schema import REQUEST_NAMES

#: Request column -> what other tools and data sets call it, without signs between words.
_ELSEWHERE: dict[str, tuple[str, ...]] = {
    "task": ("mode", "tasktype", "pipeline"),
    "prompt": ("text", "caption", "captions", "prompts", "txt", "positiveprompt", "promptstr"),
    "negative_prompt": ("negative", "negprompt", "uncond", "negativeprompts"),
    "image": ("initimage", "inputimage", "sourceimage", "imagepath", "imageurl", "img", "imgpath", "imagefile"),
    "mask": ("maskimage", "maskpath", "maskurl", "inpaintmask"),
    "mask_polarity": ("polarity", "invertmask"),
    "conditions": ("imagesandprompts", "interpolate"),
    "seed": ("randomseed", "noiseseed", "generatorseed", "rngseed"),
    "num_images": ("numimagesperprompt", "numsamples", "nsamples", "niter", "batchcount", "numoutputs", "imagecount"),
    "height": ("h", "imageheight", "outputheight"),
    "width": ("w", "imagewidth", "outputwidth"),
    "steps": ("step", "numinferencesteps", "numsteps", "samplingsteps", "inferencesteps", "ddimsteps", "decodersteps"),
    "guidance_scale": ("cfg", "cfgscale", "guidance", "scale", "unconditionalguidancescale", "decoderguidancescale"),
    "prior_steps": ("priornuminferencesteps", "priorinferencesteps"),
    "prior_guidance_scale": ("priorcfg", "priorcfgscale", "priorguidance", "priorcfscale"),
    "strength": ("denoise", "denoisingstrength", "imagestrength", "noisestrength"),
}


def _bare(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


_SPELLED = {_bare(name): name for name in REQUEST_NAMES}
_CALLED = {alias: name for name, aliases in _ELSEWHERE.items() for alias in aliases}

#: Shorter names are one slip away from too many words.
_SHORTEST = 5


def meant(column: str, others: Collection[str]) -> str | None:
    """The request column that another column may be meant as; None where it looks like none.

    Args:
        others: all columns of the same file. What is called like in another tool, or nearly like a request column, is
            not told where the file has that request column.
    """
    if column in REQUEST_NAMES or column in GIVEN_EMBEDDINGS:
        return None
    bare = _bare(column)
    if bare in _SPELLED:
        return _SPELLED[bare]
    name = _CALLED.get(bare) or next((name for spelled, name in _SPELLED.items() if _is_slip(bare, spelled)), None)
    return None if name in others else name


def _is_slip(word: str, right: str) -> bool:
    """True where one letter of a word is missing, added, another one, or in its neighbour's place."""
    if min(len(word), len(right)) < _SHORTEST or word[0] != right[0] or abs(len(word) - len(right)) > 1:
        return False
    same = next((place for place, (a, b) in enumerate(zip(word, right, strict=False)) if a != b), len(right))
    a, b = word[same:], right[same:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[1::-1] == b[:2] and a[2:] == b[2:])
