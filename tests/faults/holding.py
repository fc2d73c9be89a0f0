"""Device calls of the real models that stand still until they may end, so that a test can kill whoever is in one.

In a folder that all processes see, for each of the stages `Prior` and `Decoder`:

    STAGE-may-end      how many calls may end, in all
    STAGE-held-PID     a process that stands still in a call, or did when it died; holds the id of its node
    STAGE-ended-…      a call that went on to its end
    lock               of whoever reads or changes these
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.nodes import lives

#: More calls than any test has.
ALL = 1_000_000


@dataclass(frozen=True)
class Holding:
    """The folder, with `killers/sitecustomize.py` on the other side."""

    folder: Path

    def allow(self, stage: str, calls: int) -> None:
        """So many calls of a stage may end, in all."""
        with self._locked():
            (self.folder / f"{stage}-may-end").write_text(str(calls))

    def ended(self, stage: str) -> int:
        """How many have ended."""
        return len([*self.folder.glob(f"{stage}-ended-*")])

    def held(self, stage: str) -> dict[int, str]:
        """Processes that stand still until more may end, each with its node; none while some may."""
        with self._locked():
            if self.ended(stage) < int((self.folder / f"{stage}-may-end").read_text()):
                return {}
            paths = self.folder.glob(f"{stage}-held-*[0-9]")
            found = {int(path.name.rpartition("-")[2]): path.read_text() for path in paths}
        return {pid: node for pid, node in found.items() if lives(pid)}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
