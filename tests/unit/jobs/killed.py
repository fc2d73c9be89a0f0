"""A kill in the middle of work on shards: the call that dies is chosen, and nothing handles it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class Killed(BaseException):
    """As a kill: nothing handles it."""


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, call: int) -> Iterator[None]:
    """What stands inside is killed at so many calls of a module's function; the ones before are made."""
    real, calls = getattr(module, name), 0

    def dying(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Killed
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, dying)
        with pytest.raises(Killed):
            yield
