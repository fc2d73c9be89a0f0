"""The driver's check of a checkpoint, and our own ones that a node lays out."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from manifests.errors import CheckpointError, UsageError
from workers.checkpoints import locations, random_weights, trained_weights
from workers.checkpoints.locations import check, condition_size, local_folder


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """The prior and the decoder without the inpainting repository, with tiny weights."""
    random_weights.write(tmp_path, lambda _name, _config: {"weight": (2, 2)})
    shutil.rmtree(tmp_path / locations.INPAINT)
    return tmp_path


@pytest.mark.parametrize("own", ["demo", "random"])
def test_our_own_checkpoints_always_pass(own: str) -> None:
    check(own, ["text2img", "inpaint"])


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: no such folder"):
        check(str(tmp_path / "nowhere"), ["text2img"])


def test_a_missing_component_is_named_with_where_to_get_it(layout: Path) -> None:
    shutil.rmtree(layout / locations.DECODER / "unet")
    with pytest.raises(CheckpointError, match=r"kandinsky-2-1 lacks unet; .*kandinsky-community/kandinsky-2-1"):
        check(str(layout), ["text2img"])


def test_the_inpainting_repository_is_needed_for_inpainting_alone(layout: Path) -> None:
    check(str(layout), ["text2img", "img2img", "interpolate"])
    with pytest.raises(CheckpointError, match="kandinsky-2-1-inpaint lacks model_index"):
        check(str(layout), ["text2img", "inpaint"])


@pytest.mark.parametrize("size", [{"shortest_edge": 336}, 336])
def test_the_edge_of_conditions_is_read_from_the_checkpoint(tmp_path: Path, size: Any) -> None:
    folder = tmp_path / locations.PRIOR / "image_processor"
    folder.mkdir(parents=True)
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": size, "crop_size": 336}))
    assert condition_size(str(tmp_path)) == 336


def test_a_processor_that_is_not_clips_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / locations.PRIOR / "image_processor"
    folder.mkdir(parents=True)
    settings = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="shortest edge = crop size"):
        condition_size(str(tmp_path))


def test_a_build_that_fails_leaves_nothing_and_the_next_one_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KANDINSKY_BATCH_CACHE", str(tmp_path))

    def broken(_name: str, _config: Any) -> dict[str, tuple[int, ...]]:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        local_folder("random", broken)
    assert not [name for name in os.listdir(tmp_path) if not name.endswith(".lock")]
    folder = local_folder("random", lambda _name, _config: {"weight": (2, 2)})
    assert (folder / locations.PRIOR / "model_index.json").exists()

    # A folder that is there is never built again.
    assert local_folder("random", broken) == folder


@pytest.mark.parametrize("own", ["demo", "random"])
def test_our_own_checkpoints_have_the_layout_that_the_check_asks_for(
    own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KANDINSKY_BATCH_CACHE", str(tmp_path))
    folder = local_folder(own, lambda _name, _config: {"weight": (2, 2)})
    check(str(folder), ["text2img", "inpaint"])
    assert condition_size(str(folder)) == condition_size(own)


def test_the_demo_checkpoint_is_small_in_half_precision_and_its_two_unets_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KANDINSKY_BATCH_CACHE", str(tmp_path))
    packed = [path for path in trained_weights.FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in packed) < 20e6
    folder = local_folder("demo", lambda _name, _config: {})
    text, inpaint = (
        load_file(folder / name / "unet" / "diffusion_pytorch_model.safetensors")
        for name in (locations.DECODER, locations.INPAINT)
    )
    assert {value.dtype for value in (text | inpaint).values()} == {np.dtype(np.float16)}
    assert text["conv_in.weight"].shape[1] == 4
    assert np.array_equal(text.pop("conv_in.weight"), inpaint.pop("conv_in.weight")[:, :4])
    assert text.keys() == inpaint.keys()
    assert all(np.array_equal(value, inpaint[name]) for name, value in text.items())


@pytest.mark.models
def test_random_weights_are_the_same_bytes_each_time(kandinsky: ModuleType, checkpoint: Path, tmp_path: Path) -> None:
    def digests(folder: Path) -> dict[str, str]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    random_weights.write(tmp_path, kandinsky.parameter_shapes)
    assert digests(tmp_path) == digests(checkpoint)


def test_a_home_that_cannot_be_written_to_is_told_with_the_variable_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KANDINSKY_BATCH_CACHE")
    monkeypatch.setenv("HOME", "/proc/nowhere")
    with pytest.raises(UsageError, match=r"/proc/nowhere.*; set KANDINSKY_BATCH_CACHE to one that can be written to"):
        locations.cache_folder()
