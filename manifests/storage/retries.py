"""Faults of storage: which pass by themselves and are tried again, and what a person can do about the others.

The other modules of this package call storage through `request`. Every backend of fsspec has exceptions of its
own, so an error is judged by what it says of itself (`errno`, an HTTP status, its class), along the chain of its
causes.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import tenacity

from manifests.errors import KandinskyBatchError, StorageError
from manifests.storage.locations import shortened

Result = TypeVar("Result")
_logger = logging.getLogger(__name__)

#: A fault that lasts longer than this is for a person. Object stores and NFS servers restart within it.
RETRY_FOR_S = 120.0

#: The same for the calls of this thread, where `patience` says otherwise.
_patience: ContextVar[float | None] = ContextVar("patience", default=None)

#: Waits between attempts double from the first to the longest, each drawn at random below that, so that
#: hundreds of workers do not come back all at once.
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 15.0

_PASSING_ERRNOS = frozenset(
    getattr(errno, name)
    for name in (
        *("EAGAIN", "EBUSY", "ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "EINTR"),
        *("EIO", "ENETDOWN", "ENETRESET", "ENETUNREACH", "EPIPE", "EREMOTEIO", "ESTALE", "ETIMEDOUT"),
    )
    if hasattr(errno, name)
)

#: Statuses with which an HTTP storage asks to come again.
_PASSING_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504})

#: Parts of class names that clients of object stores give to what passes (botocore, aiohttp, google, azure).
_PASSING_NAMES = (
    "Timeout",
    "ConnectionError",
    "Disconnected",
    "PayloadError",
    "SlowDown",
    "Throttl",
    "HTTPClientError",
)

_LASTING_NAMES = ("Credentials", "ProfileNotFound", "InvalidEndpoint")


def passes(error: BaseException) -> bool:
    """True where the same request may succeed a little later."""
    verdict = False
    for cause in _chain(error):
        name = type(cause).__name__
        if isinstance(cause, _LASTING) or any(word in name for word in _LASTING_NAMES):
            return False
        number = getattr(cause, "errno", None)
        if isinstance(cause, OSError) and isinstance(number, int):
            if number not in _PASSING_ERRNOS:
                return False
            verdict = True
        elif isinstance(cause, (TimeoutError, ConnectionError)) or any(word in name for word in _PASSING_NAMES):
            verdict = True
        elif _status(cause) is not None:
            verdict = verdict or _status(cause) in _PASSING_STATUSES
        elif type(cause) is OSError:
            # A client that says neither what nor why; most of them mean a broken transfer.
            verdict = True
    return verdict


_LASTING = (
    PermissionError,
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    ImportError,
    TypeError,
)


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Within the block this thread tries again for so long only: on what a row names, and not the run's own storage."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


def _retry_for() -> float:
    patience_s = _patience.get()
    return RETRY_FOR_S if patience_s is None else patience_s


def retried(call: Callable[[], Result], what: str) -> Result:
    """Call until it succeeds, while what it raises is of the kind that passes.

    That is for `RETRY_FOR_S` at most, or as `patience` says.
    """

    def tell(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0.0
        _logger.warning("cannot %s: %s: %s; trying again in %.1f s", what, type(error).__name__, error, wait)

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(passes),
        wait=tenacity.wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S),
        stop=tenacity.stop_after_delay(_retry_for()),
        before_sleep=tell,
        reraise=True,
    )(call)


def request(action: str, url: str, call: Callable[[], Result]) -> Result:
    """Call storage with retries, and turn what storage raises for good into a `StorageError` with a reason.

    A missing file passes through, except where something was to be written: then a bucket is missing.
    """
    shown = shortened(url)
    try:
        return retried(call, f"{action} {shown}")
    except KandinskyBatchError:
        raise
    except Exception as error:  # every backend has exceptions of its own, with no common base
        if isinstance(error, FileNotFoundError) and action != "write":
            raise
        reason = f"{type(error).__name__}: {str(error).replace(url, shown)}"
        raise StorageError(f"cannot {action} {shown}: {reason}; {advice(error)}") from error


def advice(error: BaseException) -> str:
    """What a person can do about a fault that does not pass."""
    if passes(error):
        return f"it did not pass within {_retry_for():g} s; see that the storage is up and can be reached"
    names = " ".join(type(cause).__name__ for cause in _chain(error))
    numbers = {getattr(cause, "errno", None) for cause in _chain(error)}
    if numbers & {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return "free some space or raise the quota"
    if errno.EROFS in numbers:
        return "the file system is mounted read-only; mount it for writing or choose another place"
    if any("request time and the" in str(cause) for cause in _chain(error)):
        return "set the clock of this machine: it is too far from the storage's, which therefore refuses its requests"
    if "Credentials" in names or "ProfileNotFound" in names:
        return "give credentials for this storage to every node (for S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
    if "PermissionError" in names:
        return "check the access rights and the credentials"
    if "ImportError" in names or "ModuleNotFoundError" in names:
        return "install the fsspec package of that storage"
    if "FileNotFoundError" in names:
        return "check the address: the bucket must exist"
    return "check the address, the access rights and the free space"


def _status(error: BaseException) -> int | None:
    """The HTTP status that a client's exception carries, in any of the places where they do."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return response if isinstance(response, int) else None
    for holder in (error, response):
        for name in ("status", "status_code", "code"):
            value = getattr(holder, name, None)
            if isinstance(value, int):
                return value
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__
