"""Models as compiled graphs (`--graph`): one compilation per shape, and what each took.

`ms.jit` reads a model's Python source (its default way; "trace" and "bytecode" have given wrong numbers) and compiles
it for the shapes of the call at hand. A call with other shapes is compiled anew, so a run should have few.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import mindspore as ms
from mindspore import mint

from manifests.config import RunConfig
from workers.device import graph_kernels
from workers.device.device import DeviceKind
from workers.device.self_check import difference
from workers.kandinsky.graph_choice import EVERYTHING, GraphChoice

Call = Callable[[], Any]

#: `--graph-compiler` -> what `ms.jit` is told.
COMPILERS: Mapping[str, Mapping[str, str]] = {"O0": {}, "O1": {"jit_level": "O1"}, "GE": {"backend": "GE"}}


#: By name of the dtype: how far a graph and its operators may be apart, as relative L2 of the worst sample.
TOLERANCES: Mapping[str, float] = {"Float32": 1e-3, "Float16": 0.05, "BFloat16": 0.3}


@dataclass(frozen=True)
class Compilation:
    """One compilation.

    Attributes:
        part: what was compiled: "unet", "prior", "movq decode", "movq encode".
        shape: of the tensor that is worked on.
        seconds: that the first call took, which is nearly all compilation.
        graph_seconds, operator_seconds: of a later call in either way; None where the graph did not compile.
        difference: of the two ways (`TOLERANCES`).
        why: the shape runs as operators after all, in words; None: as a graph.
    """

    part: str
    shape: tuple[int, ...]
    seconds: float
    graph_seconds: float | None = None
    operator_seconds: float | None = None
    difference: float | None = None
    why: str | None = None


@dataclass
class Graphs:
    """The compiled models of one process.

    Attributes:
        choice: what is to be compiled.
        compiler: one of COMPILERS.
        on: calls run as graphs; else as operators, though the model is one that can be compiled.
        compilations: those that nobody has taken out yet.
    """

    choice: GraphChoice = EVERYTHING
    compiler: str = "O0"
    on: bool = True
    compilations: list[Compilation] = field(default_factory=list)

    @classmethod
    def of(cls, choice: GraphChoice, config: RunConfig, kind: DeviceKind) -> Graphs:
        """Those of a run's actor."""
        return cls(choice, config.graph_compiler if kind == "ascend" else "O0")

    def compile(self, model: Any, method: str, part: str) -> None:
        """Have a model's method run as a graph from now on; it is compiled at the first call with each shape.

        A shape that does not compile, or whose graph gives other numbers than the operators, goes on as operators.
        """
        original = getattr(model, method)
        # A graph with Python left in it crashed when it was compiled for a second shape, hence the whole or an error.
        compiled = ms.jit(original, fullgraph=True, **COMPILERS[self.compiler])
        is_graph: dict[Any, bool] = {}

        # The compiler asks the model for the method by its name, and follows `__wrapped__` to its source.
        @functools.wraps(original)
        def call(_model: Any, *arguments: Any, **named: Any) -> Any:
            def as_operators() -> Any:
                return original(*arguments, **named)

            def as_graph() -> Any:
                # Tensors in a plain dict would be constants of the graph.
                given = {name: ms.mutable(value) if isinstance(value, dict) else value for name, value in named.items()}
                with graph_kernels.bound():
                    return compiled(*arguments, **given)

            if not self.on:
                return as_operators()
            signature = _signature((arguments, named))
            if signature not in is_graph:
                first = next(value for value in (*arguments, *named.values()) if isinstance(value, ms.Tensor))
                tried = _try(part, tuple(first.shape), as_graph, as_operators)
                is_graph[signature] = tried.why is None
                self.compilations.append(tried)
            return as_graph() if is_graph[signature] else as_operators()

        setattr(model, method, MethodType(call, model))

    def compile_prior(self, prior: Any) -> None:
        """A PriorTransformer of Kandinsky."""
        prior.construct = MethodType(construct, prior)
        self.compile(prior, "construct", "prior")


def _try(part: str, shape: tuple[int, ...], as_graph: Call, as_operators: Call) -> Compilation:
    """Compile, and hold the graph against the operators: by its numbers, and by what it saves of a call."""
    began = time.perf_counter()
    try:
        result, seconds = _timed(as_graph)
    except Exception as error:  # whatever the compiler raises
        why = f"it does not compile ({type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]})"
        return Compilation(part, shape, time.perf_counter() - began, why=why)
    plain, _ = _timed(as_operators)
    apart, tolerance = difference(_samples(plain), _samples(result)), TOLERANCES[str(_first(plain).dtype)]
    # Never true of NaN.
    other = None if apart <= tolerance else f"its result differs by {apart:.2g}, more than {tolerance:g}"
    # Both are warm now, and take turns, so that what else the machine does slows both. What a graph saves decides for
    # later outputs (jobs/schedule/graphs.py), not here: an image's way must not depend on who was busy.
    turns = [(_timed(as_graph)[1], _timed(as_operators)[1]) for _ in range(2)]
    graph, operators = map(min, zip(*turns, strict=True))
    return Compilation(part, shape, seconds, graph, operators, apart, other)


def _timed(call: Call) -> tuple[Any, float]:
    """What a call gives, and how long it takes until that is there."""
    began = time.perf_counter()
    result = call()
    _first(result).asnumpy()
    return result, time.perf_counter() - began


def _first(result: Any) -> ms.Tensor:
    return result[0] if isinstance(result, tuple) else result


def _samples(result: Any) -> Any:
    """One row for each sample."""
    tensor = _first(result).to(ms.float32)
    return tensor.reshape(tensor.shape[0], -1).asnumpy()


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
