"""Checkpoints that are fetched, from storage and from the Hub: what is checked, fetched, kept and made anew."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from manifests import storage
from manifests.errors import CheckpointError, StorageError
from manifests.storage import retries
from tests.unit.workers.hub_server import OWNER, HubServer
from workers.checkpoints import hub_store, locations, random_weights, repository_files
from workers.checkpoints.locations import DECODER, INPAINT, PRIOR, check, condition_size, local_folder

UNET = "unet/diffusion_pytorch_model.safetensors"
#: What the Hub's repositories hold beside, and nobody needs here.
BALLAST = ("README.md", "cat.png", "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.fp16.safetensors")


#: How long the server may take to answer, and the settings of the Hub's library that say so.
PATIENCE_S = 300
PATIENCE = ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")


def shapes(_name: str, _config: Any) -> dict[str, tuple[int, ...]]:
    return {"weight": (2, 2)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as the Hub has it, with tiny weights."""
    folder = tmp_path_factory.mktemp("whole")
    random_weights.write(folder, shapes)
    for name in BALLAST:
        (folder / DECODER / name).write_bytes(b"ballast")
    return folder


@pytest.fixture
def source(whole: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may break."""
    return Path(shutil.copytree(whole, tmp_path / "source"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of a fresh node."""
    monkeypatch.setenv("KANDINSKY_BATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(retries, "RETRY_FOR_S", 0.0)
    return tmp_path / "cache"


@pytest.fixture
def memory(source: Path) -> Iterator[str]:
    """The checkpoint on a storage that is no folder."""
    fsspec.filesystem("memory").put(f"{source}/", "/models/kandinsky", recursive=True)
    yield "memory://models/kandinsky"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def hub(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub, as this process sees it with HF_ENDPOINT; its own cache is empty."""
    from huggingface_hub import constants, file_download

    server = HubServer(source)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "users-cache"))
    # Read once, at the import, which may have been in another test that wanted no network.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # However busy this machine is.
    monkeypatch.setattr(hub_store, "TIMEOUT_S", PATIENCE_S)
    for name in PATIENCE:
        monkeypatch.setattr(constants, name, PATIENCE_S)
    yield server
    server.close()


def same(copy: Path, source: Path) -> bool:
    """Whether a copy of a repository holds what is needed, and nothing else."""
    names = repository_files.names_in(source)
    return sorted(repository_files.names_in(copy)) == repository_files.needed(names) and all(
        (copy / name).read_bytes() == (source / name).read_bytes() for name in repository_files.needed(names)
    )


def break_file(path: Path, how: str) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-3] if how == "cut" else content[:-1] + bytes([content[-1] ^ 1]))


def test_what_is_needed_of_a_repository() -> None:
    names = ["unet/model.safetensors.index.json", "unet/model-00001-of-00002.safetensors", "text/sentencepiece.model"]
    left = ["unet/pytorch_model.bin.index.json", "unet/model.safetensors.index.fp16.json", "onnx/a/b.json", ".x/y.json"]
    assert repository_files.needed([*names, *left, *BALLAST]) == sorted(names)


def test_missing_shards_of_weights_are_named() -> None:
    names = ["model_index.json", "unet/config.json", "unet/model-00002-of-00003.safetensors"]
    expected = ["unet/model-00001-of-00003.safetensors", "unet/model-00003-of-00003.safetensors"]
    assert repository_files.lacking(names, ["unet"]) == expected
    assert repository_files.lacking(["unet/x.bin", "unet/config.json"], ["unet"]) == [
        "model_index.json",
        "unet/*.safetensors",
    ]


@pytest.mark.parametrize("content", [b"", b"12345678", b"<html>no such file, but a page about it</html>"])
def test_a_file_that_is_no_weights_is_noticed(source: Path, content: bytes) -> None:
    (source / DECODER / UNET).write_bytes(content)
    with pytest.raises(CheckpointError, match="is no safetensors file"):
        check(str(source), ["text2img"])


def test_weights_of_a_folder_that_are_cut_off_are_noticed_by_driver_and_node(source: Path) -> None:
    break_file(source / DECODER / UNET, "cut")
    check(str(source), ["inpaint"])
    for look in (lambda: check(str(source), ["text2img"]), lambda: local_folder(str(source), shapes, [DECODER])):
        with pytest.raises(CheckpointError, match=rf"kandinsky-2-1: {UNET} has \d+ bytes, not \d+"):
            look()


def test_a_checkpoint_on_storage_is_fetched_once_and_only_what_is_needed(
    memory: str, source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(memory, ["text2img"])
    assert condition_size(memory) == 224
    assert not cache.exists()

    folder = local_folder(memory, shapes, [PRIOR, DECODER])
    assert same(folder / PRIOR, source / PRIOR)
    assert same(folder / DECODER, source / DECODER)
    assert not (folder / INPAINT).exists()

    monkeypatch.setattr(storage, "fetch", None)
    assert local_folder(memory, shapes, [PRIOR, DECODER]) == folder


def test_actors_that_start_together_fetch_once(memory: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    fetch = storage.fetch

    def counted(url: str, local_file: str) -> None:
        fetched.append(url)
        fetch(url, local_file)

    monkeypatch.setattr(storage, "fetch", counted)
    actors = [threading.Thread(target=local_folder, args=(memory, shapes, [PRIOR])) for _ in range(4)]
    for actor in actors:
        actor.start()
    for actor in actors:
        actor.join()
    assert len(fetched) == len(set(fetched)) > 5


def test_a_fetch_that_was_ended_goes_on_with_what_is_missing(
    memory: str, source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch, fetched = storage.fetch, []

    def dies(url: str, local_file: str) -> None:
        if url.endswith(UNET):
            Path(local_file).write_bytes(b"half of i")
            raise StorageError("killed")
        fetch(url, local_file)

    monkeypatch.setattr(storage, "fetch", dies)
    with pytest.raises(StorageError, match="killed"):
        local_folder(memory, shapes, [DECODER])
    assert not list(cache.glob(f"checkpoints/*/{DECODER}"))
    monkeypatch.setattr(storage, "fetch", lambda url, file: fetched.append(url) or fetch(url, file))
    folder = local_folder(memory, shapes, [DECODER])
    assert same(folder / DECODER, source / DECODER)
    assert [url.rpartition("/")[2] for url in fetched] == [UNET.rpartition("/")[2]]


def test_a_damaged_copy_is_mended_by_fetching_that_file(memory: str, source: Path, cache: Path) -> None:
    folder = local_folder(memory, shapes, [DECODER])
    break_file(folder / DECODER / UNET, "cut")
    (folder / DECODER / "movq" / "config.json").unlink()
    assert same(local_folder(memory, shapes, [DECODER]) / DECODER, source / DECODER)


def test_what_changes_on_storage_is_fetched_anew_and_the_old_copy_goes(memory: str, source: Path, cache: Path) -> None:
    folder = local_folder(memory, shapes, [DECODER])
    break_file(source / DECODER / UNET, "flip")
    storage.write_atomic(f"{memory}/{DECODER}/{UNET}", (source / DECODER / UNET).read_bytes())
    assert same(local_folder(memory, shapes, [DECODER]) / DECODER, source / DECODER)
    assert len([path for path in folder.glob(f".{DECODER}.*") if path.is_dir()]) == 1


def test_a_node_that_cannot_reach_the_storage_uses_its_copy(
    memory: str, source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_folder(memory, shapes, [PRIOR])

    def away(*_: object) -> None:
        raise StorageError("cannot list it: it is away")

    monkeypatch.setattr(storage, "list_tree", away)
    monkeypatch.setattr(storage, "read_bytes", away)
    folder = local_folder(memory, shapes, [PRIOR])
    assert same(folder / PRIOR, source / PRIOR)
    assert condition_size(memory) == 224
    with pytest.raises(CheckpointError, match="it is away; this node has no copy"):
        check(memory, ["text2img"])
    break_file(folder / PRIOR / "prior/diffusion_pytorch_model.safetensors", "cut")
    with pytest.raises(CheckpointError, match=r"prior/diffusion_pytorch_model.safetensors has \d+ bytes"):
        local_folder(memory, shapes, [PRIOR])


def test_checksums_beside_the_repositories_are_held_against_what_comes(memory: str, source: Path, cache: Path) -> None:
    name = f"{DECODER}/{UNET}"
    sums = {name: repository_files.sha256(source / name).upper()}
    storage.write_atomic(f"{memory}/checksums.json", json.dumps(sums).encode())
    break_file(source / name, "flip")
    storage.write_atomic(f"{memory}/{name}", (source / name).read_bytes())
    with pytest.raises(CheckpointError, match=r"unet/.*: its SHA-256 is not the one in checksums.json"):
        local_folder(memory, shapes, [DECODER])
    break_file(source / name, "flip")
    storage.write_atomic(f"{memory}/{name}", (source / name).read_bytes())
    assert same(local_folder(memory, shapes, [DECODER]) / DECODER, source / DECODER)


def test_a_url_without_the_repositories_is_told_at_once(memory: str, cache: Path) -> None:
    with pytest.raises(CheckpointError, match=r"memory://models/kandinsky-2-1-prior lacks model_index"):
        check("memory://models", ["text2img"])


def test_a_disk_that_is_too_small_is_told_before_fetching(
    memory: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match=r"0\.0 GB free.*KANDINSKY_BATCH_CACHE"):
        local_folder(memory, shapes, [DECODER])


def test_a_prefix_of_the_hub_is_fetched_once_and_only_what_is_needed(hub: HubServer, source: Path, cache: Path) -> None:
    check(f"{OWNER}/", ["text2img"])
    assert not hub.fetched
    assert condition_size(f"{OWNER}/") == 224
    folder = local_folder(f"{OWNER}/", shapes, [PRIOR, DECODER])
    assert same(folder / PRIOR, source / PRIOR)
    assert same(folder / DECODER, source / DECODER)
    assert len(hub.fetched) == len(set(hub.fetched))
    before = len(hub.fetched)
    assert local_folder(f"{OWNER}/", shapes, [PRIOR, DECODER]) == folder
    assert len(hub.fetched) == before


@pytest.mark.parametrize("how", ["cut", "flip"])
def test_a_damaged_file_of_the_hubs_cache_is_fetched_anew(hub: HubServer, source: Path, cache: Path, how: str) -> None:
    folder = local_folder(f"{OWNER}/", shapes, [DECODER])
    break_file(folder / DECODER / UNET, how)
    # A changed bit shows only where the copy has not been hashed yet.
    for note in folder.glob("*.hashed"):
        note.unlink()
    before = len(hub.fetched)
    assert same(local_folder(f"{OWNER}/", shapes, [DECODER]) / DECODER, source / DECODER)
    assert len(hub.fetched) == before + 1


def test_what_the_user_has_downloaded_from_the_hub_is_used(
    hub: HubServer, source: Path, tmp_path: Path, cache: Path
) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download(f"{OWNER}/{PRIOR}", cache_dir=tmp_path / "users-cache")
    before = len(hub.fetched)
    folder = local_folder(f"{OWNER}/", shapes, [PRIOR])
    assert len(hub.fetched) == before
    assert (tmp_path / "users-cache") in (folder / PRIOR).resolve().parents


def test_a_revision_that_is_not_there_and_an_unknown_owner_are_told(hub: HubServer, cache: Path) -> None:
    check(f"{OWNER}@v1/", ["text2img"])
    with pytest.raises(CheckpointError, match="kandinsky-2-1-prior@v9 on the Hugging Face Hub: no such branch"):
        check(f"{OWNER}@v9/", ["text2img"])
    with pytest.raises(CheckpointError, match=r"there is no kandinsky-comunity/kandinsky-2-1-prior .*absolute path"):
        check("kandinsky-comunity/", ["text2img"])


def test_weights_that_mindone_cannot_read_are_told_before_anything_is_fetched(
    hub: HubServer, source: Path, cache: Path
) -> None:
    (source / DECODER / UNET).unlink()
    with pytest.raises(CheckpointError, match=r"lacks unet/\*.safetensors"):
        check(f"{OWNER}/", ["text2img"])


LOOK = f"""
import sys
from workers.checkpoints import hub_store
hub_store.TIMEOUT_S = {PATIENCE_S}
from workers.checkpoints.locations import check, condition_size, local_folder
from manifests.errors import KandinskyBatchError
try:
    check(sys.argv[1], ["text2img"])
    print(condition_size(sys.argv[1]), local_folder(sys.argv[1], None, ["kandinsky-2-1-prior", "kandinsky-2-1"]))
except KandinskyBatchError as error:
    sys.exit(f"{{type(error).__name__}}: {{error}}")
"""


def test_a_node_without_network_works_with_a_filled_cache_and_says_so_without_one(
    hub: HubServer, cache: Path, tmp_path: Path
) -> None:
    from huggingface_hub import snapshot_download

    # In processes of their own, as the Hub's library reads its environment when it is imported.
    patience = dict.fromkeys(PATIENCE, str(PATIENCE_S))
    environment = {**os.environ, **patience, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}

    def look(**more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", LOOK, f"{OWNER}/"]
        return subprocess.run(command, env={**environment, **more}, capture_output=True, text=True, timeout=300)

    offline = look(HF_HUB_OFFLINE="1")
    assert offline.returncode == 1
    assert "CheckpointError: --checkpoint kandinsky-community/: cannot reach" in offline.stderr
    assert "this node has no copy" in offline.stderr
    # A fetch that was ended, of which the cache holds a part.
    snapshot_download(f"{OWNER}/{PRIOR}", cache_dir=cache / "hub", allow_patterns="*/*.json")
    offline = look(HF_HUB_OFFLINE="1")
    assert "cannot reach" in offline.stderr
    assert "this node's copy: kandinsky-2-1-prior lacks model_index.json" in offline.stderr
    online = look()
    assert online.returncode == 0, online.stderr
    before = len(hub.got)
    offline = look(HF_HUB_OFFLINE="1")
    assert (offline.returncode, offline.stdout) == (0, online.stdout), offline.stderr
    away = look(HF_ENDPOINT="http://127.0.0.1:9")
    assert (away.returncode, away.stdout) == (0, online.stdout), away.stderr
    assert len(hub.got) == before
    assert locations.cache_folder() in Path(online.stdout.split()[1]).parents
