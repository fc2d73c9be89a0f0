"""The noise contract: which generator draws the noise of an image, so that anyone can redo one image.

The noise depends on the request's seed and the image's number in its request alone: not on batch, pool size, retry or
device count. Pass these generators to the plain pipelines and they draw what the job drew.
"""

from __future__ import annotations

import numpy as np

_PRIOR, _DECODER = 0, 1


def prior_generator(seed: int, image_index: int, condition: int = 0) -> np.random.Generator:
    """Generator of the prior's noise: starting latents, then each step's; positive row first, then the negative one.

    Args:
        seed: the request's seed, 0 … 2**64 - 1.
        image_index: which of the request's images, from 0.
        condition: position of the text in an interpolation's conditions, their number for its negative embedding,
            0 in the other tasks.
    """
    return np.random.default_rng([seed, image_index, _PRIOR, condition])


def decoder_generator(seed: int, image_index: int) -> np.random.Generator:
    """Generator of the decoder's noise; arguments as in `prior_generator`."""
    return np.random.default_rng([seed, image_index, _DECODER, 0])
