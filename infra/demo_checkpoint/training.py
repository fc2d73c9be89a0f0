"""The training loop that the stages share: processes of one thread, averaged gradients, resumable.

Two processes of one thread stay quick where one process of two threads stalls as soon as anything else runs.
"""

from __future__ import annotations

import functools
import json
import math
import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import distributed, nn
from torch.nn import functional

#: Seconds between checkpoints.
SAVE_EVERY = 120.0
#: Steps over which the learning rate rises.
WARM_UP = 200

Losses = dict[str, torch.Tensor]


def rank() -> int:
    """Number of this process."""
    return int(os.environ.get("RANK", "0"))


def processes() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def random_numbers(seed: int) -> np.random.Generator:
    """A generator of this process for what comes before a stage's loop; PyTorch's is seeded as well."""
    torch.manual_seed(seed * 100 + rank())
    return np.random.default_rng([seed, rank()])


def quicken(model: nn.Module) -> nn.Module:
    """Channels-last convolutions around channels-first group norms, whose backward pass is twice as quick on a CPU."""

    def normalize(norm: nn.GroupNorm, x: torch.Tensor) -> torch.Tensor:
        if x.dim() != 4:
            return functional.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
        y = functional.group_norm(x.contiguous(), norm.num_groups, norm.weight, norm.bias, norm.eps)
        return y.contiguous(memory_format=torch.channels_last)

    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.forward = functools.partial(normalize, module)
    return model.to(memory_format=torch.channels_last)


class Stage:
    """One stage of the recipe: its model, the moving average of its weights, its place on the way.

    Args:
        name: file stem of the checkpoint and of the results, in `folder`.
        folder: where they go; what lies there is gone on with.
        model: all parts that learn together.
        steps: of the optimiser in all.
        rate: highest learning rate; after the warm-up a cosine takes it down to a fiftieth.
        decay: of the moving average, which is the result.

    `rng` draws this process's batches: other ones after each start.
    """

    def __init__(self, name: str, folder: Path, model: nn.Module, *, steps: int, rate: float, decay: float) -> None:
        self.name, self.folder, self.model, self.steps, self.rate, self.decay = name, folder, model, steps, rate, decay
        if processes() > 1 and not distributed.is_initialized():
            meeting = f"file://{os.environ['MEETING']}/processes"
            distributed.init_process_group("gloo", init_method=meeting, rank=rank(), world_size=processes())
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=rate, weight_decay=0.01, betas=(0.9, 0.98), fused=True)
        self._step, self._seconds = 0, 0.0
        self._history: list[dict[str, float]] = []
        self._checkpoint = folder / f"{name}.pt"
        if self._checkpoint.exists():
            self._resume()
        else:
            if processes() > 1:
                for tensor in model.state_dict().values():
                    distributed.broadcast(tensor, 0)
            self._average = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.rng = np.random.default_rng([zlib.crc32(name.encode()), rank(), self._step])
        torch.manual_seed(int(self.rng.integers(2**31)))
        live = model.state_dict()
        learned = [k for k, v in live.items() if v.is_floating_point()]
        self._live, self._averages = [live[k] for k in learned], [self._average[k] for k in learned]

    def _resume(self) -> None:
        kept = torch.load(self._checkpoint, weights_only=True)
        self.model.load_state_dict(kept["model"])
        self._optimizer.load_state_dict(kept["optimizer"])
        self._step, self._seconds, self._history = kept["step"], kept["seconds"], kept["history"]
        self._average = kept["average"]

    def _save(self) -> None:
        if rank() == 0:
            state = {"model": self.model.state_dict(), "optimizer": self._optimizer.state_dict(), "step": self._step}
            state |= {"seconds": self._seconds, "history": self._history, "average": self._average}
            torch.save(state, self._checkpoint.with_suffix(".part"))
            os.replace(self._checkpoint.with_suffix(".part"), self._checkpoint)

    def _learn(self, parts: Losses) -> None:
        progress = self._step / self.steps
        rate = self.rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in self._optimizer.param_groups:
            group["lr"] = rate * min(1.0, (self._step + 1) / WARM_UP)
        self._optimizer.zero_grad(set_to_none=True)
        sum(v for k, v in parts.items() if not k.startswith("_")).backward()
        if processes() > 1:
            gradients = [p.grad for p in self._parameters if p.grad is not None]
            flat = torch.cat([g.reshape(-1) for g in gradients])
            distributed.all_reduce(flat)
            for g, mean in zip(gradients, (flat / processes()).split([g.numel() for g in gradients]), strict=True):
                g.copy_(mean.view_as(g))
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        self._step += 1
        decay = min(self.decay, (1 + self._step) / (10 + self._step))
        with torch.no_grad():
            torch._foreach_lerp_(self._averages, self._live, 1 - decay)

    def run(self, loss: Callable[[int], Losses], measure: Callable[[], dict[str, float]], every: int) -> None:
        """Train to the end, then write `NAME.result` (weights) and `NAME.json` (losses, measures, wall time).

        Args:
            loss: given the step, the parts of the loss of a fresh batch; their sum is learned, except for parts whose
                name starts with "_", which are only told.
            measure: called with the averaged weights in the model, every `every` steps and at the end.
            every: steps between two lines of the log.
        """
        saved = mark = time.monotonic()
        told: dict[str, list[float]] = {}
        while self._step < self.steps:
            parts = loss(self._step)
            self._learn(parts)
            for key, value in parts.items():
                told.setdefault(key.lstrip("_"), []).append(float(value.detach()))
            last = self._step == self.steps
            if self._step % every == 0 or last:
                self._tell(told, time.monotonic() - mark, measure)
                told, mark = {}, time.monotonic()
            if time.monotonic() - saved > SAVE_EVERY or last:
                self._save()
                saved = time.monotonic()
        if rank() == 0:
            torch.save(self._average, self.folder / f"{self.name}.result")
            record = {"steps": self.steps, "processes": processes(), "seconds": self._seconds, "told": self._history}
            (self.folder / f"{self.name}.json").write_text(json.dumps(record, indent=1))
        if processes() > 1:
            distributed.barrier()

    def _tell(self, told: dict[str, list[float]], seconds: float, measure: Callable[[], dict[str, float]]) -> None:
        self._seconds += seconds
        line = {"step": self._step, "seconds": round(self._seconds)}
        line |= {key: round(float(np.mean(values)), 5) for key, values in told.items()}
        if rank() == 0:
            live = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
            self.model.load_state_dict(self._average)
            self.model.eval()
            with torch.no_grad():
                line |= {key: round(value, 5) for key, value in measure().items()}
            self.model.train()
            self.model.load_state_dict(live)
            print(time.strftime("%H:%M:%S"), self.name, json.dumps(line), flush=True)
        self._history.append(line)
