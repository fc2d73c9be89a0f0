"""What the models of each pool hold, told by the files of a checkpoint wherever it lies."""

from __future__ import annotations

from pathlib import Path

import fsspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from jobs.cost.weights import Weights, weights_of
from workers.checkpoints import random_weights
from workers.checkpoints.locations import DECODER, INPAINT, PRIOR


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint whose models are one matrix of 2 x 2 each, the UNets of 100 and 200 numbers, these in float16."""
    random_weights.write(tmp_path / "checkpoint", lambda _name, _config: {"weight": (2, 2)})
    for repository, numbers in ((DECODER, 100), (INPAINT, 200)):
        file = tmp_path / "checkpoint" / repository / "unet" / "diffusion_pytorch_model.safetensors"
        save_file({"a": np.zeros((numbers // 2, 2), np.float16)}, file)
        save_file({"a": np.zeros(9999, np.float32)}, file.with_name("diffusion_pytorch_model.fp16.safetensors"))
    return tmp_path / "checkpoint"


@pytest.mark.parametrize(
    ("tasks", "decoder"),
    [
        (["text2img"], 16 + 16 + 400),
        (["inpaint"], 16 + 16 + 800),
        (["img2img", "inpaint"], 16 + 16 + 400 + 800),
    ],
)
def test_both_pools_are_told_in_float32_and_what_pipelines_share_counts_once(
    folder: Path, tasks: list[str], decoder: int
) -> None:
    assert weights_of(str(folder), tasks) == Weights(prior=3 * 16, decoder=decoder)


def test_a_store_is_asked_for_sizes_alone(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KANDINSKY_BATCH_CACHE", str(tmp_path / "cache"))
    (folder / DECODER / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"x" * 5000)
    memory = fsspec.filesystem("memory")
    memory.put(f"{folder}/", "/models/kandinsky", recursive=True)
    try:
        told = weights_of("memory://models/kandinsky", ["text2img"])
    finally:
        memory.store.clear()
    sizes = {
        path.parent.name: path.stat().st_size
        for path in (folder / DECODER).glob("*/*.safetensors")
        if "fp16" not in path.name
    }
    assert sizes["unet"] == 5000
    assert told is not None
    assert told.decoder == sum(sizes.values())


@pytest.mark.parametrize("component", ["prior", "text_encoder"])
def test_where_a_size_is_not_known_nothing_is_told(folder: Path, component: str) -> None:
    for path in (folder / PRIOR / component).glob("*.safetensors"):
        path.write_bytes(b"no header")
    assert weights_of(str(folder), ["text2img"]) is None


def test_our_own_checkpoints_are_too_small_to_count() -> None:
    assert weights_of("demo", ["text2img", "inpaint"]) == Weights(0, 0)


def test_a_plan_with_nothing_to_make_loads_nothing(folder: Path) -> None:
    assert weights_of(str(folder), []) is None
