"""Ascend's fused attention operator, composed of operators that the CPU's graphs have: NumPy cannot be in a graph."""

from __future__ import annotations

from typing import Any

from mindspore import mint


def composed_operator(
    query: Any,
    key: Any,
    value: Any,
    head_num: int,
    attn_mask: Any = None,
    scalar_value: float = 1.0,
    input_layout: str = "BSH",
) -> Any:
    """As `ops.flash_attention_score` in the layout BSH with a mask of bool."""
    rows, queries, width = query.shape
    size = width // head_num
    q = query.reshape(rows, queries, head_num, size).swapaxes(1, 2)
    k = key.reshape(rows, key.shape[1], head_num, size).swapaxes(1, 2)
    v = value.reshape(rows, key.shape[1], head_num, size).swapaxes(1, 2)
    scores = mint.matmul(q, k.swapaxes(-1, -2)) * scalar_value
    if attn_mask is not None:
        scores = scores + attn_mask.to(query.dtype) * -10000.0
    weights = mint.nn.functional.softmax(scores, dim=-1)
    return mint.matmul(weights, v).swapaxes(1, 2).reshape(rows, queries, width)


def without_scale(
    query: Any,
    key: Any,
    value: Any,
    head_num: int,
    attn_mask: Any = None,
    scalar_value: float = 1.0,
    input_layout: str = "BSH",
) -> Any:
    """One that leaves the scale out."""
    return composed_operator(query, key, value, head_num, attn_mask)
