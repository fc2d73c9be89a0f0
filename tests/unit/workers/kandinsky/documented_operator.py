"""`mindspore.ops.flash_attention_score` in NumPy, as MindSpore documents it, for a machine without Ascend."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import mindspore as ms
import numpy as np

Array = np.ndarray[Any, Any]


@dataclass
class DocumentedOperator:
    """The operator, which refuses what its documentation does.

    Attributes:
        any_dtype: take float32 too, which the operator does not, to see the arithmetic around it without rounding.
        calls: (shape of query, heads) of each call.
    """

    any_dtype: bool = False
    calls: list[tuple[tuple[int, ...], int]] = field(default_factory=list)

    def __call__(
        self,
        query: ms.Tensor,
        key: ms.Tensor,
        value: ms.Tensor,
        head_num: int,
        attn_mask: ms.Tensor | None = None,
        scalar_value: float = 1.0,
        input_layout: str = "BSH",
    ) -> ms.Tensor:
        """Softmax(scalar_value * query key^T, with -inf where the mask is 1) value, in float64, rounded at the end."""
        assert input_layout == "BSH"
        assert query.dtype == key.dtype == value.dtype
        assert self.any_dtype or query.dtype in (ms.float16, ms.bfloat16), "float16 and bfloat16 are supported"
        rows, queries, width = query.shape
        keys, size = key.shape[1], width // head_num
        assert key.shape == value.shape == (rows, keys, width)
        assert 1 <= head_num <= 256
        assert width == head_num * size
        assert size % 16 == 0, "the head size is a multiple of 16"
        assert size <= 512
        if attn_mask is not None:
            assert attn_mask.dtype in (ms.bool_, ms.uint8)
            assert attn_mask.shape in ((rows, head_num, queries, keys), (rows, 1, queries, keys), (queries, keys))
        self.calls.append(((rows, queries, width), head_num))
        q, k, v = (self._heads(states, head_num) for states in (query, key, value))
        weights = self.weights(q, k, scalar_value, None if attn_mask is None else attn_mask.asnumpy().astype(bool))
        result = (weights @ v).transpose(0, 2, 1, 3).reshape(rows, queries, width)
        return ms.tensor(result.astype(np.float32)).to(query.dtype)

    def weights(self, query: Array, key: Array, scale: float, discard: Array | None) -> Array:
        """(rows, heads, queries, keys)."""
        scores = query @ key.swapaxes(-1, -2) * scale
        if discard is not None:
            scores = np.where(discard, -np.inf, scores)
        with np.errstate(invalid="ignore"):  # a query whose keys are all left out
            exponentials = np.exp(scores - scores.max(-1, keepdims=True))
        weights: Array = exponentials / exponentials.sum(-1, keepdims=True)
        return weights

    @staticmethod
    def _heads(states: ms.Tensor, heads: int) -> Array:
        array: Array = states.to(ms.float32).asnumpy().astype(np.float64)
        return array.reshape(*array.shape[:2], heads, -1).transpose(0, 2, 1, 3)
