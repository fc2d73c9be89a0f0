"""A command in a process of its own, with its time and the most memory that it held."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from manifests.errors import KandinskyBatchError, UsageError
from workers.device.device import PROCESS_ENVIRONMENT

#: This source tree.
ROOT = Path(__file__).resolve().parents[2]

#: Stands between us and the command: until it is replaced by its program a process is the size of the one that starts
#: it, and the kernel counts that as well. This one is small, and starts nothing else.
_LAUNCHER = """
import json, os, subprocess, sys, time
began = time.monotonic()
process = subprocess.Popen(sys.argv[2:])
_, status, used = os.wait4(process.pid, 0)
# Linux counts memory in KiB, macOS in bytes.
peak = used.ru_maxrss << (0 if sys.platform == "darwin" else 10)
with open(int(sys.argv[1]), "w") as file:
    json.dump([os.waitstatus_to_exitcode(status), time.monotonic() - began, peak], file)
"""


@dataclass(frozen=True)
class Ended:
    """A command that has ended.

    Attributes:
        seconds: from its start to its end.
        peak_bytes: most memory that its process held (resident), those that it started not counted.
    """

    returncode: int
    stdout: str
    stderr: str
    seconds: float
    peak_bytes: int


def run(command: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Ended:
    """Run a command to its end."""
    reader, writer = os.pipe()
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(writer), *command]
    with open(reader) as measured:
        try:
            ended = subprocess.run(launcher, cwd=cwd, env=env, capture_output=True, text=True, pass_fds=(writer,))
        finally:
            os.close(writer)
        returncode, seconds, peak_bytes = json.loads(measured.read())
    return Ended(returncode, ended.stdout, ended.stderr, seconds, peak_bytes)


def run_checked(
    what: str, command: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Ended:
    """Run a command that must succeed.

    Raises:
        KandinskyBatchError: it did not; `what` says what was measured.
    """
    ended = run(command, cwd, env)
    if ended.returncode:
        raise KandinskyBatchError(f"{what} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
    return ended


def script(name: str, *options: str) -> list[str]:
    """The command that starts a script of `jobs/`."""
    return [sys.executable, str(ROOT / "jobs" / name), *options]


def has_pytorch(python: str | None) -> TypeGuard[str]:
    """Whether PyTorch's side can be measured; where no interpreter is given, it says that it is left out.

    Raises:
        UsageError: the interpreter that is given cannot import what that side needs.
    """
    if python is None:
        print("PyTorch is left out; --torch-python PATH names an interpreter that has torch and diffusers")
        return False
    try:
        code = subprocess.run([python, "-c", "import torch, diffusers"], capture_output=True).returncode
    except OSError:
        code = 1
    if code:
        raise UsageError(f"option --torch-python: {python} cannot import torch and diffusers")
    return True


def plain_environment() -> dict[str, str]:
    """For a process that finds this source tree, and starts a Ray of its own whatever cluster was started here before.

    What MindSpore needs each sets itself, and PyTorch's must not have.
    """
    environment = {name: value for name, value in os.environ.items() if name not in PROCESS_ENVIRONMENT}
    return {**environment, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": "local"}
