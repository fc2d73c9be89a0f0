"""A script as a person starts it, but within the process of the test, which spares the imports of another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pytest

from jobs.cli import run_script


@dataclass(frozen=True)
class Ended:
    """What a script has left: its exit code, and what it has said."""

    returncode: int
    stdout: str
    stderr: str


#: Given a script's main function and its words.
Start = Callable[..., Ended]


def starting(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts scripts; what has been printed before is not theirs."""

    def start(main: Callable[[], int], *words: str) -> Ended:
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr("sys.argv", ["script.py", *words])
        threads = pa.cpu_count()
        capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as ended:
                run_script(main)
        finally:
            pa.set_cpu_count(threads)
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, *capsys.readouterr())

    return start
