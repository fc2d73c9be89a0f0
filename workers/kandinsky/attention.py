"""Attention by Ascend's fused operator (`--attention`), where a trial on the device itself says that it may be used.

The plain way makes the scores of all queries and keys, their softmax and its product with the values, each through the
card's memory; `ops.flash_attention_score` does the three in one. Of what is documented for it only what all versions
agree on is used: layout BSH, a mask of bool, no position shift, and head sizes of `HEAD_SIZES`, up to which smaller
heads are padded with zeros. mindone's own processors are not used for it: the one for added keys drops them, and the
other one takes the operator on Ascend unasked and looks into the mask's values on every call.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from typing import Any, Literal

import mindspore as ms
import numpy as np
from mindspore import mint, ops

from workers.device import graph_kernels
from workers.device.device import DeviceKind
from workers.device.self_check import PLAIN, Array, Decision, Trial, decide

AttentionWay = Literal["auto", "plain", "fused"]

#: That every documented version of the operator takes.
HEAD_SIZES = (64, 80, 96, 128, 256, 512)

#: By name of the dtype: how far the two ways may be apart, in the worst query's relative L2. Both round each score and
#: each weight to the dtype at different places; a wrong key, mask or scale moves the worst query by 0.1 and more.
TOLERANCES = {"Float16": 0.02, "BFloat16": 0.15, "Float32": 1e-4}

#: Queries of a trial: more than one tile of the operator, as an image of 256 px has; and of them the added keys, whose
#: number is no multiple of anything: 77 tokens and 10 of the image embedding.
_QUERIES, _ADDED = 1024, 87

#: Tokens of the prior, of which the last text ones of the trial's second row are padding.
_PRIOR_TOKENS, _TEXT_TOKENS, _OF_TEXT = 81, 77, 9


def attend(
    query: ms.Tensor, key: ms.Tensor, value: ms.Tensor, heads: int, scale: float, mask: ms.Tensor | None = None
) -> ms.Tensor:
    """Attention by the fused operator.

    Args:
        query: (rows, queries, heads * size); key, value: (rows, keys, heads * size). float16 or bfloat16.
        scale: of the scores.
        mask: added to the scores, (rows * heads, 1 or queries, keys), the same for all heads: 0, or so low that nothing
            is left of the key.

    Returns:
        As `query`.

    Raises:
        ValueError: the heads are larger than the operator takes.
    """
    rows, queries, width = query.shape
    size = width // heads
    padded = padded_size(size)
    # 1 is what is left out.
    discard = None if mask is None else mask.reshape(rows, heads, -1, mask.shape[-1])[:, :1] < 0
    if discard is not None:
        discard = discard.broadcast_to((rows, 1, queries, key.shape[1]))
    result = ops.flash_attention_score(
        _padded(query, heads, padded),
        _padded(key, heads, padded),
        _padded(value, heads, padded),
        heads,
        attn_mask=discard,
        scalar_value=scale,
        input_layout="BSH",
    )
    if padded != size:
        result = result.reshape(rows, queries, heads, padded)[..., :size].reshape(rows, queries, width)
    return result


def padded_size(size: int) -> int:
    """The head size that the operator is called with for heads of `size`; ValueError: there is none."""
    for known in HEAD_SIZES:
        if size <= known:
            return known
    raise ValueError(f"heads of {size} are larger than the operator's largest, {HEAD_SIZES[-1]}")


def _padded(states: ms.Tensor, heads: int, size: int) -> ms.Tensor:
    rows, tokens, width = states.shape
    if width == heads * size:
        return states
    apart = states.reshape(rows, tokens, heads, width // heads)
    return mint.nn.functional.pad(apart, (0, size - width // heads), value=0.0).reshape(rows, tokens, heads * size)


@ms.jit_class
class FusedAddedKeys:
    """The UNet's processor: the text's keys and values stand before the image's (mindone: AttnAddedKVProcessor)."""

    def __call__(
        self,
        attn: Any,
        hidden_states: ms.Tensor,
        encoder_hidden_states: ms.Tensor | None = None,
        attention_mask: ms.Tensor | None = None,
    ) -> ms.Tensor:
        """hidden_states (rows, channels, height, width), encoder_hidden_states (rows, tokens, width of the text)."""
        image = hidden_states.reshape(hidden_states.shape[0], hidden_states.shape[1], -1).swapaxes(1, 2)
        mask = attn.prepare_attention_mask(attention_mask, image.shape[1], image.shape[0])
        text = image if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            text = attn.norm_encoder_hidden_states(text)
        image = attn.group_norm(image.swapaxes(1, 2)).swapaxes(1, 2)
        key, value = attn.add_k_proj(text), attn.add_v_proj(text)
        if not attn.only_cross_attention:
            key = mint.cat([key, attn.to_k(image)], dim=1)
            value = mint.cat([value, attn.to_v(image)], dim=1)
        result = attend(attn.to_q(image), key, value, attn.heads, attn.scale, mask)
        result = attn.to_out[1](attn.to_out[0](result))
        return result.swapaxes(-1, -2).reshape(hidden_states.shape) + hidden_states


@ms.jit_class
class FusedAttention:
    """The processor of the prior, with a mask, and of MoVQ, on images (mindone: AttnProcessor2_0)."""

    def __call__(
        self,
        attn: Any,
        hidden_states: ms.Tensor,
        encoder_hidden_states: ms.Tensor | None = None,
        attention_mask: ms.Tensor | None = None,
        temb: ms.Tensor | None = None,
    ) -> ms.Tensor:
        """hidden_states (rows, tokens, width) or (rows, channels, height, width)."""
        states = hidden_states if attn.spatial_norm is None else attn.spatial_norm(hidden_states, temb)
        if hidden_states.ndim == 4:
            states = states.reshape(states.shape[0], states.shape[1], -1).swapaxes(1, 2)
        other = states if encoder_hidden_states is None else encoder_hidden_states
        mask = attn.prepare_attention_mask(attention_mask, other.shape[1], other.shape[0])
        if attn.group_norm is not None:
            states = attn.group_norm(states.swapaxes(1, 2)).swapaxes(1, 2)
        if encoder_hidden_states is None:
            other = states
        elif attn.norm_cross:
            other = attn.norm_encoder_hidden_states(other)
        result = attend(attn.to_q(states), attn.to_k(other), attn.to_v(other), attn.heads, attn.scale, mask)
        result = attn.to_out[1](attn.to_out[0](result))
        if hidden_states.ndim == 4:
            result = result.swapaxes(-1, -2).reshape(hidden_states.shape)
        if attn.residual_connection:
            result = result + hidden_states
        return result / attn.rescale_output_factor


class AttentionSwitch:
    """Of one actor: decides for each model that it loads.

    Args:
        wanted: the option's value.
        kind: of the device.
        graph: the models are compiled, and so are the trials.
    """

    def __init__(self, wanted: AttentionWay, kind: DeviceKind, graph: bool = False) -> None:
        self._wanted, self._kind, self._graph = wanted, kind, graph
        self._decisions: list[Decision] = []

    @property
    def record(self) -> list[dict[str, Any]]:
        """What was decided so far, for the run's record."""
        return [asdict(decision) for decision in self._decisions]

    def apply(self, model: Any, name: str, masked: bool = False) -> None:
        """Give a model's attention the way that it is to have; must come before anything is computed with it.

        Args:
            name: of the model, as people read it.
            masked: it computes with a mask as the prior's.

        Raises:
            UsageError, DeviceError: as of `decide`.
        """
        layers = attention_layers(model)
        why = self._reason_for_plain()
        if why is not None:
            self._decisions.append(Decision("attention", name, PLAIN, why=why))
        else:
            sizes = {layer.inner_dim // layer.heads: layer for layer in reversed(layers)}
            made = [
                decide(trial_of(layer, f"{name}, heads of {size}", masked, self._graph), self._wanted)
                for size, layer in sorted(sizes.items())
            ]
            self._decisions += made
            if not any(decision.fell_back for decision in made):
                for layer in layers:
                    layer.set_processor(FusedAttention() if layer.added_kv_proj_dim is None else FusedAddedKeys())
                return
        for layer in layers:
            # Without a word, mindone's own processor takes the fused operator where it finds Ascend.
            layer.enable_flash_sdp(False)

    def _reason_for_plain(self) -> str | None:
        if self._wanted == PLAIN:
            return "--attention plain"
        if self._wanted == "auto" and self._kind == "cpu":
            return "the CPU has no fused operator"
        return None


def attention_layers(model: Any) -> list[Any]:
    """A model's attention layers, in its order."""
    return [cell for _, cell in model.cells_and_names() if hasattr(cell, "head_to_batch_dim")]


def trial_of(layer: Any, of: str, masked: bool, graph: bool = False) -> Trial:
    """Attention as a layer does it, plain as mindone has it and fused, on random queries, keys and values.

    Args:
        layer: gives heads, their size, scale and dtype, and whether there are added keys.
        of: what the trial stands for.
        masked: with causal and padding masks, as the prior's.
        graph: compile the fused way.
    """
    heads, dtype = layer.heads, layer.to_q.weight.dtype
    queries = _PRIOR_TOKENS if masked else _QUERIES
    keys = queries if layer.added_kv_proj_dim is None else queries + _ADDED
    random = np.random.default_rng(0)
    query, key, value = (
        ms.tensor(random.standard_normal((2, tokens, layer.inner_dim), np.float32)).to(dtype)
        for tokens in (queries, keys, keys)
    )
    mask = ms.tensor(np.repeat(_prior_mask(), heads, axis=0)).to(dtype) if masked else None

    def plainly() -> Array:
        states = [layer.head_to_batch_dim(each) for each in (query, key, value)]
        weights = layer.get_attention_scores(states[0], states[1], mask)
        return _array(layer.batch_to_head_dim(mint.bmm(weights, states[2])), heads)

    def fused() -> Array:
        way = ms.jit(attend, fullgraph=True) if graph else attend
        with graph_kernels.bound() if graph else nullcontext():
            return _array(way(query, key, value, heads, layer.scale, mask), heads)

    return Trial("attention", "fused", of, plainly, fused, TOLERANCES[str(dtype)])


def _prior_mask() -> Array:
    """(2, tokens, tokens) as the prior has it: no token sees what comes after it, nor padding."""
    mask = np.triu(np.full((2, _PRIOR_TOKENS, _PRIOR_TOKENS), -10000.0, np.float32), 1)
    mask[1, :, _OF_TEXT:_TEXT_TOKENS] -= 10000.0
    return mask


def _array(states: ms.Tensor, heads: int) -> Array:
    """Each head of each query by itself: (rows, queries, heads, size)."""
    array: Array = states.to(ms.float32).asnumpy()
    return array.reshape(*array.shape[:2], heads, -1)
