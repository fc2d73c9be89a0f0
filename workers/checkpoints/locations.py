"""Finding a checkpoint: the driver's quick check, and the folder that a node's actors load from.

A checkpoint is three repositories as the Hugging Face Hub lays them out, in one of five places:

    demo                        a small trained one in this package, which each node lays out once in its cache folder
    random                      the same architecture with random weights, built there; for tests and measurements
    /data/kandinsky             a folder that every node sees
    s3://bucket/kandinsky       any storage that fsspec knows (url_store.py)
    kandinsky-community/        an owner on the Hugging Face Hub, or OWNER@REVISION/ (hub_store.py)

From the last two each node fetches what it needs once, into its cache folder, and uses it again while the place still
holds the same or cannot be reached.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from manifests import storage
from manifests.errors import CheckpointError, StorageError, UsageError, first_line
from workers.checkpoints import hub_store, random_weights, repository_files, trained_weights
from workers.checkpoints.hub_store import HubStore
from workers.checkpoints.repository_files import Listed
from workers.checkpoints.url_store import UrlStore

_logger = logging.getLogger(__name__)

DEMO, RANDOM = "demo", "random"
#: Checkpoints that come with this package.
OWN = (DEMO, RANDOM)
PRIOR, DECODER, INPAINT = "kandinsky-2-1-prior", "kandinsky-2-1", "kandinsky-2-1-inpaint"
#: Components that each repository must hold.
COMPONENTS = {
    PRIOR: ("prior", "image_encoder", "text_encoder", "tokenizer", "scheduler"),
    DECODER: ("unet", "movq", "text_encoder", "tokenizer", "scheduler"),
    INPAINT: ("unet", "movq", "text_encoder", "tokenizer", "scheduler"),
}


def repositories(tasks: Iterable[str]) -> tuple[str, ...]:
    """The repositories that these tasks load; the prior's is the first."""
    tasks = set(tasks)
    decoders = [DECODER] if tasks - {"inpaint"} else []
    return (PRIOR, *decoders, *([INPAINT] if "inpaint" in tasks else []))


def check(checkpoint: str, tasks: Iterable[str]) -> None:
    """Look whether the checkpoint has what the tasks need, without fetching or loading any weights.

    Raises:
        CheckpointError: a repository or component is missing, or a file is cut off; the text says which and where.
    """
    if checkpoint in OWN:
        return
    store = _store(checkpoint)
    for name in repositories(tasks):
        copy, what = Path(checkpoint) / name, f"--checkpoint {checkpoint}"
        if store is not None:
            try:
                _refuse_half(store.where(name), repository_files.lacking(store.listed(name), COMPONENTS[name]))
                continue
            except StorageError as error:
                here = _copy_here(store, checkpoint, name)
                if here is None:
                    raise CheckpointError(f"{what}: {error}; this node has no copy of it") from error
                copy, what = here, f"{what}: {error}; this node's copy"
        _check_copy(copy, name, what)


def condition_size(checkpoint: str) -> int:
    """Edge in pixels of the square that the prior's image encoder sees; 224 for the real checkpoint.

    Raises:
        CheckpointError: the processor's settings are not CLIP's (shortest edge resized, then a centre crop).
        StorageError: the place of the checkpoint cannot be reached.
    """
    name = "image_processor/preprocessor_config.json"
    if checkpoint == RANDOM:
        return 224
    try:
        settings = json.loads(_read(checkpoint, PRIOR, name))
    except FileNotFoundError:
        return 224
    size, crop = settings.get("size", 224), settings.get("crop_size", 224)
    edge = size.get("shortest_edge") if isinstance(size, dict) else size
    square = {crop["height"], crop["width"]} if isinstance(crop, dict) else {crop}
    if not isinstance(edge, int) or square != {edge} or settings.get("resample", 3) != 3:
        raise CheckpointError(
            f"{checkpoint}, {PRIOR}/{name}: expected CLIP's shortest edge = crop size with bicubic resampling, got "
            f"{settings}"
        )
    return edge


def prior_content(checkpoint: str) -> Path | Mapping[str, Listed]:
    """What tells one prior from another: its folder on this machine, or what its place says of the files in it.

    Args:
        checkpoint: `demo`, a folder, a URL or a prefix of the Hub.

    Raises:
        CheckpointError: there is no such prior.
        StorageError: its place cannot be reached, and this node has no copy.
    """
    store = _store(checkpoint)
    if store is None:
        return _folder(checkpoint) / PRIOR
    try:
        return store.listed(PRIOR)
    except StorageError:
        copy = _copy_here(store, checkpoint, PRIOR)
        if copy is None:
            raise
        return copy


def prior_setting(checkpoint: str, component: str, name: str) -> Any:
    """One setting of a component of the prior's repository; None where it says nothing, or nothing that can be read.

    Raises:
        StorageError: the place of the checkpoint cannot be reached.
    """
    return component_config(checkpoint, PRIOR, component).get(name)


def component_config(checkpoint: str, repository: str, component: str) -> Mapping[str, Any]:
    """The settings of a component; none where there is nothing that can be read.

    Raises:
        StorageError: the place of the checkpoint cannot be reached.
    """
    if checkpoint in OWN:
        own = random_weights if checkpoint == RANDOM else trained_weights
        return own.config_of(repository, component)
    try:
        content = json.loads(_read(checkpoint, repository, f"{component}/config.json"))
    except (OSError, ValueError):
        # Whoever loads the model says what is wrong with it.
        return {}
    return content if isinstance(content, dict) else {}


def cache_folder() -> Path:
    """Where nodes keep what they built or fetched: $KANDINSKY_BATCH_CACHE, else the user's cache folder.

    Raises:
        UsageError: there is none, and it cannot be made.
    """
    root = os.environ.get("KANDINSKY_BATCH_CACHE")
    try:
        folder = Path(root) if root else Path.home() / ".cache" / "kandinsky-batch"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"{socket.gethostname()} has no folder for copies of models ({first_line(error)}); set "
            "KANDINSKY_BATCH_CACHE to one that can be written to"
        ) from error
    return folder


def local_folder(
    checkpoint: str, shapes: random_weights.ParameterShapes, wanted: Iterable[str] = tuple(COMPONENTS)
) -> Path:
    """Folder on this node with the repositories; the first process of a node that asks fetches or builds them.

    Args:
        checkpoint: `demo`, `random`, a folder, a URL or a prefix of the Hub.
        shapes: see `random_weights.ParameterShapes`; called only to build `random`.
        wanted: repositories that must be there; our own checkpoints have them all.

    Raises:
        CheckpointError: something is missing or damaged that fetching again does not mend.
        StorageError: nothing is here, and the place of the checkpoint cannot be reached.
    """
    if checkpoint in OWN:
        return _own_folder(checkpoint, shapes)
    store = _store(checkpoint)
    root = Path(checkpoint) if store is None else _copies(checkpoint)
    for name in wanted:
        if store is not None:
            _bring(store, checkpoint, name)
        _check_copy(root / name, name, f"checkpoint {checkpoint} on this node")
    return root


def _folder(checkpoint: str) -> Path:
    """Where the prior of a checkpoint that need not be fetched lies."""
    return trained_weights.FOLDER if checkpoint == DEMO else Path(checkpoint)


def _store(checkpoint: str) -> UrlStore | HubStore | None:
    """Where to fetch a checkpoint from; None for a folder and for `demo`."""
    if checkpoint == DEMO:
        return None
    if storage.is_remote(checkpoint):
        return UrlStore(checkpoint)
    prefix = hub_store.parse(checkpoint)
    return HubStore(*prefix, cache_folder() / "hub") if prefix else None


def _check_copy(folder: Path, name: str, what: str) -> None:
    """Whether a repository in a folder of this machine is whole, as far as a look at each file tells.

    Raises:
        CheckpointError: it is not.
    """
    if not folder.parent.is_dir():
        raise CheckpointError(
            f"{what}: no such folder; give 'demo', a folder or URL that holds {PRIOR}, {DECODER} and {INPAINT} as the "
            "Hugging Face Hub lays them out, or an owner there, such as kandinsky-community/"
        )
    try:
        _refuse_half(f"{what}: {name}", repository_files.lacking(repository_files.names_in(folder), COMPONENTS[name]))
    except CheckpointError as error:
        whole = f"download the whole repository kandinsky-community/{name} into {folder}"
        raise CheckpointError(f"{error}; {whole}") from error
    if broken := repository_files.damaged(folder):
        raise CheckpointError(f"{what}: {name}: {repository_files.in_words(broken)}; get it anew into {folder}")


def _refuse_half(what: str, missing: Sequence[str]) -> None:
    if missing:
        raise CheckpointError(f"{what} lacks {', '.join(missing)}")


def _copies(checkpoint: str) -> Path:
    """Folder of this node for copies of a checkpoint's repositories."""
    plain = re.sub(r"[^\w.-]+", "-", checkpoint).strip("-")
    digest = hashlib.blake2b(checkpoint.encode(), digest_size=4).hexdigest()
    return cache_folder() / "checkpoints" / f"{plain}-{digest}"


def _copy_here(store: UrlStore | HubStore, checkpoint: str, name: str) -> Path | None:
    """This node's copy of a repository, if it has one; its place is not asked."""
    copy = store.cached(name) if isinstance(store, HubStore) else _copies(checkpoint) / name
    return copy if copy is not None and copy.is_dir() else None


def _read(checkpoint: str, repository: str, name: str) -> bytes:
    """A small file of a repository, from its place or, where that cannot be reached, from this node's copy."""
    store = _store(checkpoint)
    if store is None:
        return (_folder(checkpoint) / repository / name).read_bytes()
    try:
        return store.read(repository, name)
    except StorageError:
        copy = _copy_here(store, checkpoint, repository)
        if copy is None:
            raise
        return (copy / name).read_bytes()


def _bring(store: UrlStore | HubStore, checkpoint: str, name: str) -> None:
    """See that this node has a copy of a repository under the folder of copies, by one process at a time."""
    root = _copies(checkpoint)
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{name}.lock"):
        try:
            listed = store.listed(name)
        except StorageError as error:
            copy = _copy_here(store, checkpoint, name)
            if copy is None:
                raise
            _logger.warning("%s; using this node's copy", error)
        else:
            _refuse_half(store.where(name), repository_files.lacking(listed, COMPONENTS[name]))
            copy = store.bring(name, root, listed)
        _link(root / name, copy)


def _link(link: Path, target: Path) -> None:
    """Make the link point to the target, in one step."""
    if link.resolve() == target.resolve():
        return
    new = link.with_name(f".{link.name}.link")
    new.unlink(missing_ok=True)
    new.symlink_to(target.resolve())
    new.replace(link)


def own_revision(checkpoint: str) -> str:
    """What tells one build of `demo` or `random` from another."""
    return f"{checkpoint}-{trained_weights.revision() if checkpoint == DEMO else random_weights.REVISION}"


def _own_folder(checkpoint: str, shapes: random_weights.ParameterShapes) -> Path:
    folder = cache_folder() / own_revision(checkpoint)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Several actors of a node start at once: one builds, the others wait; a killed build leaves no half folder.
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            partial = Path(tempfile.mkdtemp(prefix=f".{checkpoint}-", dir=folder.parent))
            try:
                if checkpoint == DEMO:
                    trained_weights.write(partial)
                else:
                    random_weights.write(partial, shapes)
                partial.chmod(0o755)
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return folder
