"""A checkpoint on any storage that fsspec knows: what it holds, and a copy of a repository on this node.

A file `checksums.json` beside the repositories, {"kandinsky-2-1/unet/config.json": "<sha256>", ...}, is held against
what was fetched; it also stands in for a listing where the storage has none (plain web servers).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from manifests import storage
from manifests.errors import CheckpointError
from workers.checkpoints import repository_files
from workers.checkpoints.repository_files import Listed

CHECKSUMS = "checksums.json"

#: Files that are fetched at once; a single stream of an object store fills no network.
STREAMS = 4


class UrlStore:
    """Repositories below a URL.

    Args:
        url: of the folder that holds them.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def where(self, repository: str) -> str:
        """The repository's place, in words."""
        return storage.join(self._url, repository)

    def listed(self, repository: str) -> dict[str, Listed]:
        """The files that are needed of a repository.

        Raises:
            StorageError: the storage cannot be reached, or refuses.
            CheckpointError: `checksums.json` is not what it should be.
        """
        sums = self._checksums(repository)
        found = {
            name: Listed(entry.size, entry.version, sums.get(name))
            for name, entry in storage.list_tree(self.where(repository)).items()
        }
        found = found or {name: Listed(None, digest, digest) for name, digest in sums.items()}
        return {name: found[name] for name in repository_files.needed(found)}

    def read(self, repository: str, name: str) -> bytes:
        """A small file.

        Raises:
            FileNotFoundError: there is no such file.
            StorageError: the storage cannot be reached, or refuses.
        """
        return storage.read_bytes(storage.join(self.where(repository), name))

    def bring(self, repository: str, root: Path, listed: Mapping[str, Listed]) -> Path:
        """A whole copy on this node, fetched where there is none; what an ended process has fetched is kept.

        Args:
            repository: to fetch.
            root: folder for copies, which nobody else writes meanwhile.
            listed: what is there now; a copy of something else is fetched anew.

        Raises:
            CheckpointError: the disk is too small, or a file is not what `checksums.json` says.
            StorageError: the storage cannot be reached, or refuses.
        """
        copy = root / f".{repository}.{_version(listed)}"
        if copy.is_dir() and not repository_files.damaged(copy, listed):
            return copy
        partial = copy.with_name(f"{copy.name}.partial")
        for other in root.glob(f".{repository}.*"):
            if other.is_dir() and other not in (copy, partial):
                shutil.rmtree(other)
        if copy.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
            copy.rename(partial)
        partial.mkdir(exist_ok=True)
        broken = repository_files.damaged(partial, listed)
        _make_room(partial, {name: listed[name].size for name in broken})
        with ThreadPoolExecutor(STREAMS) as streams:
            # Asking for each result raises what went wrong.
            list(streams.map(lambda name: self._fetch(repository, partial, name, listed[name]), broken))
        if left := repository_files.damaged(partial, listed):
            raise CheckpointError(f"{self.where(repository)}: {repository_files.in_words(left)}; it is damaged there")
        partial.rename(copy)
        return copy

    def _checksums(self, repository: str) -> dict[str, str]:
        """SHA-256 by name, of the files that `checksums.json` knows."""
        url = storage.join(self._url, CHECKSUMS)
        try:
            sums = json.loads(storage.read_bytes(url))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise CheckpointError(f"{url}: not JSON ({error})") from error
        if not isinstance(sums, dict) or not all(isinstance(digest, str) for digest in sums.values()):
            raise CheckpointError(f"{url}: expected an object of paths and their SHA-256 in hex digits")
        inside = f"{repository}/"
        return {name[len(inside) :]: digest.lower() for name, digest in sums.items() if name.startswith(inside)}

    def _fetch(self, repository: str, folder: Path, name: str, listed: Listed) -> None:
        """One file, under its name only when it is whole."""
        url, target = storage.join(self.where(repository), name), folder / name
        arriving = target.with_name(f".{target.name}.arriving")
        target.parent.mkdir(exist_ok=True)
        storage.fetch(url, str(arriving))
        if listed.sha256 is not None and repository_files.sha256(arriving) != listed.sha256:
            arriving.unlink()
            raise CheckpointError(f"{url}: its SHA-256 is not the one in {CHECKSUMS}; store it there anew")
        os.replace(arriving, target)


def _version(listed: Mapping[str, Listed]) -> str:
    """One short name for the state of all files."""
    state = [(name, file.size, file.version, file.sha256) for name, file in sorted(listed.items())]
    return hashlib.blake2b(json.dumps(state).encode(), digest_size=8).hexdigest()


def _make_room(folder: Path, sizes: Mapping[str, int | None]) -> None:
    wanted, free = sum(size or 0 for size in sizes.values()), shutil.disk_usage(folder).free
    if wanted > free:
        raise CheckpointError(
            f"{folder.parent} has {free / 1e9:.1f} GB free, the checkpoint needs {wanted / 1e9:.1f} GB more; free some "
            "space, or let KANDINSKY_BATCH_CACHE name a folder on a larger disk"
        )
