"""A checkpoint's fingerprint: the same for a copy, another for other weights or settings."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from workers.embeddings import origin
from workers.embeddings.origin import fingerprints, prior_origin


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(origin, "_WHOLE_BYTES", 10_000)
    prior = tmp_path / "one" / "kandinsky-2-1-prior"
    for name in ("prior", "tokenizer"):
        (prior / name).mkdir(parents=True)
    (prior / "model_index.json").write_text("{}")
    (prior / "prior" / "config.json").write_text(json.dumps({"embedding_dim": 32}))
    (prior / "tokenizer" / "vocab.json").write_text("[]")
    save_file(weights(), prior / "prior" / "model.safetensors")
    (prior / "prior" / "model.bin").write_bytes(bytes(20_000))
    return tmp_path / "one"


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((200, 200)).astype(np.float32) for name in ("a", "b")}


def changed(folder: Path, name: str, change: bytes | None, tmp_path: Path) -> str:
    """Fingerprint of a copy in which one file of the prior is replaced, or of the copy as it is."""
    copy = tmp_path / os.urandom(4).hex()
    shutil.copytree(folder, copy)
    if change is not None:
        (copy / "kandinsky-2-1-prior" / name).write_bytes(change)
    return prior_origin(str(copy), "cpu").checkpoint


def test_a_copy_has_the_same_fingerprint_and_any_change_another(folder: Path, tmp_path: Path) -> None:
    origin = prior_origin(str(folder), "cpu")
    assert (origin.dtype, origin.width) == ("float32", 32)
    assert prior_origin(str(folder), "ascend").dtype == "float16"
    assert changed(folder, "", None, tmp_path) == origin.checkpoint
    assert changed(folder, "README.md", b"words", tmp_path) == origin.checkpoint
    trained = weights()
    trained["b"] *= 1.0001
    save_file(trained, tmp_path / "trained.safetensors")
    one_end = weights()
    one_end["a"][-1, -1] = 5
    save_file(one_end, tmp_path / "one_end.safetensors")
    others = [
        changed(folder, "prior/model.safetensors", (tmp_path / "trained.safetensors").read_bytes(), tmp_path),
        changed(folder, "prior/model.safetensors", (tmp_path / "one_end.safetensors").read_bytes(), tmp_path),
        changed(folder, "prior/model.bin", bytes(range(200)) * 100, tmp_path),
        changed(folder, "tokenizer/vocab.json", b"{}", tmp_path),
        changed(folder, "prior/config.json", b'{"embedding_dim": 32, "x": 1}', tmp_path),
        prior_origin("demo", "cpu").checkpoint,
    ]
    assert len({origin.checkpoint, *others}) == len(others) + 1


def test_a_damaged_checkpoint_has_some_fingerprint_and_fails_where_it_is_loaded(folder: Path) -> None:
    prior = folder / "kandinsky-2-1-prior" / "prior"
    (prior / "config.json").write_text("no json")
    (prior / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0" + bytes(90_000))
    assert prior_origin(str(folder), "cpu").width == 768


def test_a_checkpoint_elsewhere_is_told_by_what_its_place_says(folder: Path) -> None:
    files = fsspec.filesystem("memory")
    found = []
    for name, vocabulary in (("one", b"[]"), ("two", b"{}!")):
        for path in folder.rglob("*"):
            if path.is_file():
                files.pipe_file(f"/{name}/{path.relative_to(folder)}", path.read_bytes())
        files.pipe_file(f"/{name}/kandinsky-2-1-prior/tokenizer/vocab.json", vocabulary)
        sums = {
            file.removeprefix(f"/{name}/"): hashlib.sha256(files.cat_file(file)).hexdigest()
            for file in files.find(f"/{name}")
        }
        files.pipe_file(f"/{name}/checksums.json", json.dumps(sums).encode())
        origin = prior_origin(f"memory://{name}", "cpu")
        assert origin.width == 32
        found.append(origin.checkpoint)
    assert len(set(found)) == 2


def test_every_repository_of_a_checkpoint_has_a_fingerprint_of_its_own_files(folder: Path, tmp_path: Path) -> None:
    names = ["kandinsky-2-1-prior", "kandinsky-2-1"]
    unet = folder / "kandinsky-2-1" / "unet" / "diffusion_pytorch_model.safetensors"
    unet.parent.mkdir(parents=True)
    save_file(weights(), unet)
    before = fingerprints(folder, names)
    assert before["kandinsky-2-1-prior"] == prior_origin(str(folder), "cpu").checkpoint
    assert fingerprints(Path(shutil.copytree(folder, tmp_path / "copy")), names) == before
    save_file({name: one + 1 for name, one in weights().items()}, unet)
    after = fingerprints(folder, names)
    assert {name for name in names if after[name] != before[name]} == {"kandinsky-2-1"}
