"""The training loop that the stages share: two processes of one thread, averaged gradients, resumable.

Two processes of one thread stay quick where one process of two threads stalls as soon as anything else runs.
"""

from __future__ import annotations

import functools
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import distributed, nn
from torch.nn import functional

#: Seconds between checkpoints.
SAVE_EVERY = 120.0


def rank() -> int:
    """Number of this process."""
    return int(os.environ.get("RANK", "0"))


def processes() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def random_numbers(seed: int) -> np.random.Generator:
    """A generator of this process alone; it also seeds PyTorch."""
    torch.manual_seed(seed * 100 + rank())
    return np.random.default_rng([seed, rank()])


def _average_gradients(parameters: list[nn.Parameter]) -> None:
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    distributed.all_reduce(flat)
    flat /= processes()
    for g, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        g.copy_(part.view_as(g))


def quicken(model: nn.Module) -> nn.Module:
    """Channels-last convolutions around channels-first group norms, whose backward pass is twice as quick on a CPU."""

    def normalize(norm: nn.GroupNorm, x: torch.Tensor) -> torch.Tensor:
        if x.dim() != 4:
            return functional.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
        y = functional.group_norm(x.contiguous(), norm.num_groups, norm.weight, norm.bias, norm.eps)
        return y.contiguous(memory_format=torch.channels_last)

    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.forward = functools.partial(normalize, module)  # type: ignore[method-assign]
    return model.to(memory_format=torch.channels_last)


class Stage:
    """One stage of the recipe: its model, its moving average, its place on the way.

    Args:
        name: file stem of the checkpoint and of the result, in `folder`.
        folder: where both go; what lies there is gone on with.
        model: all parts that learn together.
        steps: of the optimiser in all.
        rate: highest learning rate; warm-up of 200 steps, then a cosine down to a fiftieth.
        decay: of the moving average of the weights, which is the result.
    """

    def __init__(
        self, name: str, folder: Path, model: nn.Module, steps: int, rate: float, decay: float, weight_decay: float = 0.01
    ) -> None:
        self.name, self.folder, self.model, self.steps, self.rate, self.decay = name, folder, model, steps, rate, decay
        if processes() > 1 and not distributed.is_initialized():
            meeting = f"file://{os.environ['MEETING']}/processes"
            distributed.init_process_group("gloo", init_method=meeting, rank=rank(), world_size=processes())
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=rate, weight_decay=weight_decay, betas=(0.9, 0.98), fused=True)
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []
        self._checkpoint = folder / f"{name}.pt"
        if self._checkpoint.exists():
            kept = torch.load(self._checkpoint, weights_only=False)
            model.load_state_dict(kept["model"])
            self.optimizer.load_state_dict(kept["optimizer"])
            self.step, self.seconds, self.history = kept["step"], kept["seconds"], kept["history"]
            self.average = kept["average"]
        else:
            if processes() > 1:
                for tensor in model.state_dict().values():
                    distributed.broadcast(tensor, 0)
            self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}

        live = model.state_dict()
        learned = [k for k, v in live.items() if v.is_floating_point()]
        self._live, self._averages = [live[k] for k in learned], [self.average[k] for k in learned]

    def _save(self) -> None:
        if rank() == 0:
            state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
            state |= {"seconds": self.seconds, "history": self.history, "average": self.average}
            torch.save(state, self._checkpoint.with_suffix(".part"))
            os.replace(self._checkpoint.with_suffix(".part"), self._checkpoint)

    def averaged(self) -> dict[str, torch.Tensor]:
        """The moving average of the weights, as a state dict."""
        return self.average

    def run(
        self,
        loss: Callable[[int], dict[str, torch.Tensor]],
        measure: Callable[[int], dict[str, float]] | None = None,
        every: int = 500,
    ) -> None:
        """Train to the end.

        Args:
            loss: given the step, the parts of the loss of a fresh batch; their sum is what is learned, parts whose
                name starts with "_" are only told.
            measure: measures at the step, told every `every` steps; it sees the averaged weights in place.
        """
        last_save = mark = time.monotonic()
        told: dict[str, list[float]] = {}
        while self.step < self.steps:
            progress = self.step / self.steps
            rate = self.rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
            for group in self.optimizer.param_groups:
                group["lr"] = rate * min(1.0, (self.step + 1) / 200)
            parts = loss(self.step)
            total = sum(v for k, v in parts.items() if not k.startswith("_"))
            self.optimizer.zero_grad(set_to_none=True)
            total.backward()
            if processes() > 1:
                _average_gradients(self.parameters)
            nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.step += 1
            decay = min(self.decay, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(self._averages, self._live, 1 - decay)
            for key, value in parts.items():
                told.setdefault(key.lstrip("_"), []).append(float(value.detach()))
            if self.step % every == 0 or self.step == self.steps:
                now = time.monotonic()
                self.seconds += now - mark
                line = {"step": self.step, "seconds": round(self.seconds), "step_seconds": (now - mark) / len(told[key.lstrip("_")])}
                line |= {key: float(np.mean(values)) for key, values in told.items()}
                if measure is not None and rank() == 0:
                    line |= self._measured(measure)
                told, mark = {}, time.monotonic()
                self.history.append(line)
                if rank() == 0:
                    print(time.strftime("%H:%M:%S"), self.name, {k: round(v, 4) for k, v in line.items()}, flush=True)
            if time.monotonic() - last_save > SAVE_EVERY or self.step == self.steps:
                last_save = time.monotonic()
                self._save()
        if rank() == 0:
            torch.save(self.average, self.folder / f"{self.name}.result")
            (self.folder / f"{self.name}.json").write_text(json.dumps(self.history[-1] | {"history": self.history}))
        if processes() > 1:
            distributed.barrier()

    def _measured(self, measure: Callable[[int], dict[str, float]]) -> dict[str, float]:
        live = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        self.model.eval()
        with torch.no_grad():
            result = measure(self.step)
        self.model.train()
        self.model.load_state_dict(live)
        return result
