"""3x3 convolutions on CPUs by Winograd's F(2x2, 3x3), in NumPy.

A tile of 4x4 pixels gives 2x2 results with 16 products per pair of channels, where there are 36 otherwise. So the
products take less than half the time, on one thread, and what is added on both sides of them is cheap as long as it
stays in the cache: samples go through it in groups.

    Y = Aᵀ [(G w Gᵀ) ⊙ (Bᵀ d B)] A        (Lavin and Gray, arXiv:1509.09308, section 4.1)
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)

#: What makes the 16 numbers of the products of the 9 of a kernel.
_OF_KERNELS: Array = np.ascontiguousarray(np.einsum("ia,jb->ijab", _G, _G).reshape(16, 9))

#: Bytes of the transformed tiles of one group of samples: what the level-2 cache holds, roughly.
_GROUP_BYTES = 2 << 20

#: Fewest channels, most pairs of them and most pixels for which this takes less of a CPU than the backend's own kernel.
_CHANNELS, _PAIRS, _PIXELS = 16, 256 * 256, 64 * 64


def is_faster(inner: int, out: int, height: int, width: int) -> bool:
    """Whether a convolution of these channels over so many pixels is better made here.

    It depends on nothing that differs between two starts of one run, whose images must not.
    """
    return min(inner, out) >= _CHANNELS and inner * out <= _PAIRS and height * width <= _PIXELS


def conv3x3(samples: Array, weight: Array, bias: Array | None) -> Array:
    """Cross-correlation with stride 1 and one pixel of zeros around.

    Args:
        samples: (N, C, H, W), float32.
        weight: (K, C, 3, 3), float32.
        bias: (K,), float32.

    Returns:
        (N, K, H, W), float32; about as exact as a sum of 9 C products.
    """
    batch, inner, height, width = samples.shape
    out = weight.shape[0]
    down, across = -(-height // 2), -(-width // 2)
    kernels = (_OF_KERNELS @ weight.reshape(out * inner, 9).T).reshape(16, out, inner).transpose(0, 2, 1)
    result = np.empty((batch, out, height, width), np.float32)
    most = max(1, _GROUP_BYTES // (16 * 4 * down * across * inner))
    group = -(-batch // -(-batch // most))
    # Channels last, so that each pass runs over long rows.
    padded = np.zeros((group, 2 * down + 2, 2 * across + 2, inner), np.float32)
    rows = np.empty((4, group, down, 2 * across + 2, inner), np.float32)
    tiles = np.empty((4, 4, group, down, across, inner), np.float32)
    products = np.empty((4, 4, group, down, across, out), np.float32)
    sums = np.empty((2, 4, group, down, across, out), np.float32)
    pixels = np.empty((group, down, 2, across, 2, out), np.float32)
    for first in range(0, batch, group):
        part = samples[first : first + group]
        # The last group may be a little smaller; what lies in the others' places is computed for nobody.
        padded[: len(part), 1 : height + 1, 1 : width + 1] = part.transpose(0, 2, 3, 1)
        _spread([padded[:, i : i + 2 * down - 1 : 2] for i in range(4)], list(rows))
        for row, columns in zip(rows, tiles, strict=True):
            _spread([row[:, :, i : i + 2 * across - 1 : 2] for i in range(4)], list(columns))
        np.matmul(tiles.reshape(16, -1, inner), kernels, out=products.reshape(16, -1, out))
        _gather(list(products), list(sums))
        for number, columns in enumerate(sums):
            _gather(list(columns), [pixels[:, :, number, :, 0], pixels[:, :, number, :, 1]])
        whole = pixels.reshape(group, 2 * down, 2 * across, out)[: len(part), :height, :width].transpose(0, 3, 1, 2)
        if bias is None:
            result[first : first + group] = whole
        else:
            np.add(whole, bias[:, None, None], out=result[first : first + group])
    return result


def _spread(given: list[Array], made: list[Array]) -> None:
    """Bᵀ along one axis: 4 pixels of a tile to 4 factors."""
    np.subtract(given[0], given[2], out=made[0])
    np.add(given[1], given[2], out=made[1])
    np.subtract(given[2], given[1], out=made[2])
    np.subtract(given[1], given[3], out=made[3])


def _gather(given: list[Array], made: list[Array]) -> None:
    """Aᵀ along one axis: 4 products to 2 pixels of the result."""
    np.add(given[0], given[1], out=made[0])
    made[0] += given[2]
    np.subtract(given[1], given[2], out=made[1])
    made[1] -= given[3]
