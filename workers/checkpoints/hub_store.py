"""A checkpoint on the Hugging Face Hub: what it holds, and a copy of a repository on this node.

`OWNER/` names the repositories OWNER/kandinsky-2-1-prior and so on, `OWNER@REVISION/` a branch, tag or commit of each.
Copies lie in the Hub's own cache layout, so what `hf download` has put into the user's cache is used as it is, and
HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean here what they mean everywhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from manifests.errors import CheckpointError, StorageError
from workers.checkpoints import repository_files
from workers.checkpoints.repository_files import Listed

_PREFIX = re.compile(r"(?P<owner>[A-Za-z0-9][\w.-]*)(/|/?@(?P<revision>[\w.-][\w./-]*?)/?)")

#: Seconds until the Hub counts as not reachable.
TIMEOUT_S = 10.0


def parse(checkpoint: str) -> tuple[str, str | None] | None:
    """Owner and revision of a prefix of the Hub; None for anything else."""
    match = _PREFIX.fullmatch(checkpoint)
    return None if match is None else (match["owner"], match["revision"])


def one_spelling(owner: str, revision: str | None) -> str:
    """The one of several ways to write a prefix that a run keeps in its records."""
    return f"{owner}/" if revision is None else f"{owner}@{revision}/"


class HubStore:
    """Repositories of one owner.

    Args:
        owner: user or organisation.
        revision: branch, tag or commit; None: the repositories' main branch.
        cache: folder for copies.
    """

    def __init__(self, owner: str, revision: str | None, cache: Path) -> None:
        self._owner, self._revision, self._cache = owner, revision, cache

    def where(self, repository: str) -> str:
        """The repository's place, in words."""
        revision = f"@{self._revision}" if self._revision else ""
        return f"{self._owner}/{repository}{revision} on the Hugging Face Hub"

    def listed(self, repository: str) -> dict[str, Listed]:
        """The files that are needed of a repository.

        Raises:
            StorageError: the Hub cannot be reached.
            CheckpointError: there is no such repository or revision, or it is not for everybody.
        """
        from huggingface_hub import HfApi

        with self._in_our_words(repository):
            found = HfApi().model_info(
                self._name(repository), revision=self._revision, files_metadata=True, timeout=TIMEOUT_S
            )
        files = {
            file.rfilename: Listed(file.size, file.blob_id or "", file.lfs.sha256 if file.lfs else None)
            for file in found.siblings or []
        }
        return {name: files[name] for name in repository_files.needed(files)}

    def read(self, repository: str, name: str) -> bytes:
        """A small file, this node's copy of it where there is one.

        Raises:
            FileNotFoundError: there is no such file.
            StorageError: the Hub cannot be reached.
        """
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        copy = self.cached(repository)
        if copy is not None and (copy / name).is_file():
            return (copy / name).read_bytes()
        try:
            with self._in_our_words(repository):
                path = hf_hub_download(
                    self._name(repository), name, revision=self._revision, cache_dir=self._folder(repository)
                )
        except EntryNotFoundError as error:
            raise FileNotFoundError(name) from error
        return Path(path).read_bytes()

    def cached(self, repository: str) -> Path | None:
        """This node's copy, whole or not; the Hub is not asked."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            return Path(
                snapshot_download(
                    self._name(repository),
                    revision=self._revision,
                    cache_dir=self._folder(repository),
                    local_files_only=True,
                )
            )
        except LocalEntryNotFoundError:
            return None

    def bring(self, repository: str, root: Path, listed: Mapping[str, Listed]) -> Path:
        """A whole copy on this node; what is missing of it, or damaged, is fetched.

        Args:
            repository: to fetch.
            root: folder for notes, which nobody else writes meanwhile.
            listed: what the Hub holds now.

        Raises:
            CheckpointError: a file is damaged on the Hub.
            StorageError: the Hub cannot be reached.
        """
        copy = self._download(repository, listed)
        # Hashing takes seconds, so each commit is hashed once on a node.
        hashed = root / f".{repository}.{copy.name}.hashed"
        broken = repository_files.damaged(copy, listed)
        if not hashed.exists():
            broken = {**_other_content(copy, listed), **broken}
        if broken:
            _remove(copy, broken)
            copy = self._download(repository, listed)
            broken = {**_other_content(copy, {name: listed[name] for name in broken})}
            broken.update(repository_files.damaged(copy, listed))
        if broken:
            words = repository_files.in_words(broken)
            raise CheckpointError(f"{self.where(repository)}: {words} although it was fetched anew")
        hashed.touch()
        return copy

    def _name(self, repository: str) -> str:
        return f"{self._owner}/{repository}"

    def _folder(self, repository: str) -> Path:
        """The user's own cache of the Hub where somebody has put the repository there, else ours."""
        from huggingface_hub.constants import HF_HUB_CACHE
        from huggingface_hub.file_download import repo_folder_name

        name = repo_folder_name(repo_id=self._name(repository), repo_type="model")
        users = Path(HF_HUB_CACHE)
        return users if (users / name).is_dir() else self._cache

    def _download(self, repository: str, listed: Iterable[str]) -> Path:
        from huggingface_hub import snapshot_download

        with self._in_our_words(repository):
            return Path(
                snapshot_download(
                    self._name(repository),
                    revision=self._revision,
                    cache_dir=self._folder(repository),
                    allow_patterns=list(listed),
                )
            )

    @contextmanager
    def _in_our_words(self, repository: str) -> Iterator[None]:
        from huggingface_hub import errors
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
        try:
            yield
        except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
            raise CheckpointError(
                f"there is no {self.where(repository)}, or it is not for everybody (then HF_TOKEN opens it); for a "
                "folder give its absolute path"
            ) from error
        except errors.RevisionNotFoundError as error:
            raise CheckpointError(f"there is no {self.where(repository)}: no such branch, tag or commit") from error
        except errors.EntryNotFoundError as error:
            if not isinstance(error, errors.LocalEntryNotFoundError):
                raise
            raise StorageError(f"cannot reach {self.where(repository)}") from error
        # Those of `requests`, which carries it, are OSErrors.
        except (errors.OfflineModeIsEnabled, errors.HfHubHTTPError, OSError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StorageError(f"cannot reach {self.where(repository)}: {reason}") from error


def _other_content(copy: Path, listed: Mapping[str, Listed]) -> dict[str, str]:
    """Files that have another SHA-256 than the Hub says."""
    wrong = "has another SHA-256 than on the Hub"
    return {
        name: wrong
        for name, file in listed.items()
        if file.sha256 is not None and (copy / name).is_file() and repository_files.sha256(copy / name) != file.sha256
    }


def _remove(copy: Path, names: Iterable[str]) -> None:
    """Take files out of a copy, and their content out of the cache, where it lies under a name of its own."""
    for name in names:
        path = copy / name
        Path(os.path.realpath(path)).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
