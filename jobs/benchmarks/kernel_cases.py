"""What the benchmark of kernels times: one step of each model, its inputs, and how a process that times answers.

Free of MindSpore and of PyTorch: both sides import it, so that they time the same work. A side reads one case per line
from stdin, as JSON, and answers with the seconds of one call, the best of several, on a line of its own.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from workers.checkpoints import random_weights
from workers.kandinsky import architecture

#: Model size -> component configs, and the edge in pixels that is timed.
SIZES: dict[str, tuple[dict[str, dict[str, Any]], int]] = {
    "demo": (random_weights.CONFIGS, 128),
    "middle": (architecture.MIDDLE, 256),
    "full": (architecture.FULL, 512),
}
#: What is timed -> the component that does it.
PARTS: dict[str, str] = {
    "UNet step": "UNet2DConditionModel",
    "prior step": "PriorTransformer",
    "MoVQ decode": "VQModel",
    "MoVQ encode": "VQModel",
}
#: A case is repeated for at least so long, and at least twice.
LEAST_SECONDS = 1.5

Arrays = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One thing to time."""

    size: str
    part: str
    batch: int

    @property
    def config(self) -> dict[str, Any]:
        """Config of the component."""
        return SIZES[self.size][0][PARTS[self.part]]

    def inputs(self) -> Arrays:
        """Arguments of one call, by their names in diffusers; float32 but for `timestep`."""
        config, edge, rows = self.config, SIZES[self.size][1], self.batch
        rng = np.random.default_rng(0)

        def noise(*shape: int) -> Any:
            return rng.standard_normal((rows, *shape)).astype(np.float32)

        if self.part == "prior step":
            width = config["embedding_dim"]
            return {
                "hidden_states": noise(width),
                "timestep": 500,
                "proj_embedding": noise(width),
                "encoder_hidden_states": noise(config["num_embeddings"], width),
                "attention_mask": np.ones((rows, config["num_embeddings"]), bool),
            }
        if self.part == "UNet step":
            width = config["cross_attention_dim"]
            return {
                "sample": noise(config["in_channels"], edge // 8, edge // 8),
                "timestep": 500,
                "encoder_hidden_states": noise(77, config["encoder_hid_dim"]),
                "text_embeds": noise(width),
                "image_embeds": noise(width),
            }
        return (
            {"latents": noise(4, edge // 8, edge // 8)} if self.part == "MoVQ decode" else {"x": noise(3, edge, edge)}
        )


def step(case: Case, model: Any, inputs: Arrays) -> Callable[[], Any]:
    """One call of a component, which has the same arguments in mindone and in diffusers; returns its tensor.

    Args:
        inputs: those of the case, as tensors of the side's library.
    """
    if case.part == "UNet step":
        added = {name: inputs.pop(name) for name in ("text_embeds", "image_embeds")}
        return lambda: model(**inputs, added_cond_kwargs=added, return_dict=False)[0]
    if case.part == "prior step":
        return lambda: model(**inputs, return_dict=False)[0]
    if case.part == "MoVQ decode":
        return lambda: model.decode(inputs["latents"], force_not_quantize=True, return_dict=False)[0]
    return lambda: model.encode(inputs["x"], return_dict=False)[0]


def cases(sizes: Sequence[str], parts: Sequence[str], batches: Sequence[int]) -> list[Case]:
    """All combinations, in the order of the table."""
    return [Case(*chosen) for chosen in itertools.product(sizes, parts, batches)]


def answer(prepare: Callable[[Case], Callable[[], object]]) -> None:
    """Serve cases from stdin until it ends.

    Args:
        prepare: builds the component and its inputs and returns one call of it, which must wait for its result.
    """
    # Libraries print to stdout as they are imported; only answers may go there.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for case in _asked():
        call = prepare(case)
        call()
        times: list[float] = []
        while len(times) < 2 or sum(times) < LEAST_SECONDS:
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        print(json.dumps(min(times)), file=answers, flush=True)


def _asked() -> Iterator[Case]:
    for line in sys.stdin:
        yield Case(**json.loads(line))


def question(case: Case) -> str:
    """The line that asks for a case."""
    return json.dumps(asdict(case)) + "\n"
