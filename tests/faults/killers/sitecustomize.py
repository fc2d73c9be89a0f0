"""Python imports this at its start, in every process of a job that has this folder on PYTHONPATH.

It makes some rows deadly, so that the job itself holds no code for its tests: a marker in a row's prompt, or in the
bytes of its image, decides what its call does to the process.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

EXITS, HANGS, EATS, RAISES = "quits at once", "never ends", "is hungry", "complains"
STARVES, STARVES_IN_COMPANY = "leaves no room", "wants a call of its own"
CODEC = b"crashes the codec"
#: Where the image is held against its prompt.
SCORED = "cannot be judged"


def _strike(prompts: Any) -> None:
    for prompt in prompts:
        if EXITS in prompt:
            os._exit(3)
        if HANGS in prompt:
            time.sleep(3600)
        if EATS in prompt:
            _eat()
        if STARVES in prompt:
            _starve(Path(os.environ["KILLERS_EATER"]), "x")
        if STARVES_IN_COMPANY in prompt and len(prompts) > 1:
            _starve(Path(os.environ["KILLERS_EATER"]), "w")
        if RAISES in prompt:
            raise ValueError("this prompt is not to my taste")


def _starve(eater: Path, mode: str) -> None:
    """Wait for the end of a process that takes all of its node's memory; the file names it. With "x" only once."""
    with contextlib.suppress(FileExistsError):
        with open(eater, mode) as file:
            file.write(str(os.getpid()))
        time.sleep(3600)


def _eat() -> None:
    """Memory without end, under a limit that spares the machine that the tests run on."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), limits[1]))
    try:
        eaten = []
        while True:
            eaten.append(bytearray(64 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _change_kandinsky(module: Any) -> None:
    embed, decode = module.PriorModel.embed, module.DecoderModel.decode

    def deadly_embed(self: Any, prompts: Any, *more: Any) -> Any:
        _strike([prompt for prompt in prompts if HANGS in prompt])
        return embed(self, prompts, *more)

    def deadly_decode(self: Any, inputs: Any, bucket: Any) -> Any:
        _strike(inputs.prompts)
        return decode(self, inputs, bucket)

    texts = module.ClipModel.texts

    def deadly_texts(self: Any, prompts: Any) -> Any:
        if any(SCORED in prompt for prompt in prompts):
            os._exit(3)
        return texts(self, prompts)

    module.PriorModel.embed, module.DecoderModel.decode = deadly_embed, deadly_decode
    module.ClipModel.texts = deadly_texts


def _change_inputs(module: Any) -> None:
    decode = module.decode

    def deadly_decode(data: bytes) -> Any:
        if CODEC in data:
            os.kill(os.getpid(), 11)
        return decode(data)

    module.decode = deadly_decode


_CHANGES = {"workers.kandinsky.pipelines": _change_kandinsky, "workers.stages.inputs": _change_inputs}


class _Finder(importlib.abc.MetaPathFinder):
    """Lets everybody else find the module, and changes it as soon as it is there."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in _CHANGES:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        assert spec is not None
        assert spec.loader is not None
        run = spec.loader.exec_module

        def run_and_change(module: Any) -> None:
            run(module)
            _CHANGES[name](module)

        spec.loader.exec_module = run_and_change  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Finder())
