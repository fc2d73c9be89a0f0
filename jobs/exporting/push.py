"""An export on the Hugging Face Hub: one commit, into a repository that is new, empty or of an earlier push."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from jobs.exporting.target import FOLDER, MARK
from manifests import storage
from manifests.errors import StorageError, UsageError, first_line

#: What the Hub puts into a new repository by itself.
_EMPTY = frozenset({".gitattributes"})

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

#: Files of ours that a smaller export has no more.
_STALE = ["data/*", "samples/*"]


def check(name: str) -> None:
    """Make sure that a repository may be written, before anything is made.

    Raises:
        UsageError: the name is none, somebody else's files are in it, or this user may not look.
        StorageError: the Hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    if not _NAME.fullmatch(name):
        raise UsageError(f"option --push: give OWNER/NAME, as the Hub spells it; got {name!r}")
    with _in_our_words(name):
        try:
            there = set(HfApi().list_repo_files(name, repo_type="dataset"))
        except RepositoryNotFoundError:
            return
    if there - _EMPTY and MARK not in there:
        raise UsageError(
            f"option --push: {name} holds {storage.in_words(there - _EMPTY)}, which no export of this program has put "
            "there; give another name"
        )


def push(folder: str, name: str, public: bool) -> str:
    """Push all files of an export; returns the address.

    Args:
        folder: on this machine.
        public: for everybody, where the repository is made now.

    Raises:
        UsageError: somebody else's files are there, or this user may not write.
        StorageError: the Hub cannot be reached.
    """
    from huggingface_hub import HfApi

    check(name)
    api = HfApi()
    with _in_our_words(name):
        api.create_repo(name, repo_type="dataset", private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            repo_type="dataset",
            folder_path=folder,
            commit_message="Export of kandinsky-batch",
            delete_patterns=_STALE,
            ignore_patterns=[f"{FOLDER}/files/*", f"{FOLDER}/finished.json"],
        )
    return f"{api.endpoint}/datasets/{name}"


@contextlib.contextmanager
def _in_our_words(name: str) -> Iterator[None]:
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        yield
    except RepositoryNotFoundError:
        raise
    except (HfHubHTTPError, LocalTokenNotFoundError) as error:
        status = getattr(getattr(error, "response", None), "status_code", 401)
        if status in (401, 403):
            raise UsageError(
                f"option --push: the Hub does not let this user write {name}; log in (`hf auth login`), or set HF_TOKEN"
            ) from error
        raise StorageError(f"pushing to {name} failed ({first_line(error)}); the same command goes on") from error
    except HFValidationError as error:
        raise UsageError(f"option --push: {name!r} is no name of a repository ({error})") from error
    except RuntimeError as error:  # what it wraps a file's upload in
        raise StorageError(f"pushing to {name} failed ({first_line(error)}); the same command goes on") from error
    except (OSError, OfflineModeIsEnabled) as error:
        raise StorageError(f"the Hub cannot be reached ({error}); the same command goes on") from error
