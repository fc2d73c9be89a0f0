"""Models as compiled graphs (`--graph`): one compilation per shape, and what each took.

`ms.jit` reads a model's Python source (its default way; "trace" and "bytecode" have given wrong numbers) and compiles
it for the shapes of the call at hand. A call with other shapes is compiled anew, so a run should have few.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import mindspore as ms
from mindspore import mint

from workers.device import graph_kernels


@dataclass(frozen=True)
class Compilation:
    """One compilation.

    Attributes:
        part: what was compiled: "unet", "prior", "movq decode", "movq encode".
        shape: of the tensor that is worked on.
        seconds: that the first call took, which is nearly all compilation.
    """

    part: str
    shape: tuple[int, ...]
    seconds: float


@dataclass
class Graphs:
    """The compiled models of one process. `compilations` are those that nobody has taken out yet."""

    compilations: list[Compilation] = field(default_factory=list)

    def compile(self, model: Any, method: str, part: str) -> None:
        """Have a model's method run as a graph from now on; it is compiled at the first call with each shape."""
        original = getattr(model, method)
        # A graph with Python left in it crashed when it was compiled for a second shape, hence the whole or an error.
        compiled = ms.jit(original, fullgraph=True)
        known: set[Any] = set()

        # The compiler asks the model for the method by its name, and follows `__wrapped__` to its source.
        @functools.wraps(original)
        def call(_model: Any, *arguments: Any, **named: Any) -> Any:
            # Tensors in a plain dict would be constants of the graph.
            named = {name: ms.mutable(value) if isinstance(value, dict) else value for name, value in named.items()}
            signature = _signature((arguments, named))
            began = time.perf_counter()
            with graph_kernels.bound():
                result = compiled(*arguments, **named)
            if signature not in known:
                known.add(signature)
                first = next(value for value in (*arguments, *named.values()) if isinstance(value, ms.Tensor))
                self.compilations.append(Compilation(part, tuple(first.shape), time.perf_counter() - began))
            return result

        setattr(model, method, MethodType(call, model))

    def compile_prior(self, prior: Any) -> None:
        """A PriorTransformer of Kandinsky."""
        prior.construct = MethodType(construct, prior)
        self.compile(prior, "construct", "prior")


def _signature(value: Any) -> Any:
    """What a graph is compiled for: shapes and types of tensors, values of all else."""
    if isinstance(value, ms.Tensor):
        return tuple(value.shape), str(value.dtype)
    if isinstance(value, Mapping):
        return tuple((name, _signature(item)) for name, item in value.items())
    if isinstance(value, tuple | list):
        return tuple(_signature(item) for item in value)
    return value


def construct(
    self: Any,
    hidden_states: ms.Tensor,
    timestep: ms.Tensor,
    proj_embedding: ms.Tensor,
    encoder_hidden_states: ms.Tensor,
    attention_mask: ms.Tensor,
    return_dict: bool = False,
) -> tuple[ms.Tensor]:
    """`PriorTransformer.construct` as Kandinsky's pipeline calls it, for the compiler.

    mindone's repeats the mask for each head by an operator that graphs have on no backend but Ascend's, and reads
    settings that its compiler cannot; here the mask is broadcast, and the settings are those of Kandinsky's prior.
    """
    rows, dtype = hidden_states.shape[0], hidden_states.dtype
    times = self.time_proj(timestep.reshape((1,)).broadcast_to((rows,)))
    tokens = mint.cat(
        [
            self.encoder_hidden_states_proj(encoder_hidden_states),
            self.embedding_proj(proj_embedding)[:, None, :],
            self.time_embedding(times.to(dtype))[:, None, :],
            self.proj_in(hidden_states)[:, None, :],
            self.prd_embedding.to(dtype).broadcast_to((rows, -1, -1)),
        ],
        dim=1,
    )
    tokens = tokens + self.positional_embedding.to(dtype)
    # (rows, texts' tokens), 1 = look at it -> (rows * heads, tokens, tokens), 0 = look at it.
    mask = (1 - attention_mask.to(dtype)) * -10000.0
    mask = mint.nn.functional.pad(mask, (0, self.additional_embeddings), value=0.0)
    mask = (mask[:, None, :] + self.causal_attention_mask).to(dtype)
    heads, length = self.transformer_blocks[0].attn1.heads, mask.shape[-1]
    mask = mask[:, None].broadcast_to((rows, heads, length, length)).reshape((rows * heads, length, length))
    for block in self.transformer_blocks:
        tokens = block(tokens, attention_mask=mask)
    return (self.proj_to_clip_embeddings(self.norm_out(tokens)[:, -1]),)
