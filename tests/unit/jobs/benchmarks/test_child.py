"""The memory of a measured command is its own, whatever the process that starts it holds."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from jobs.benchmarks import child
from manifests.errors import KandinskyBatchError

MIB = 1 << 20


def test_only_the_commands_own_memory_counts() -> None:
    ours = b"x" * (300 * MIB)
    small = child.run([sys.executable, "-c", "print('said')"])
    assert (small.returncode, small.stdout, small.stderr) == (0, "said\n", "")
    assert small.peak_bytes < 100 * MIB < len(ours)
    large = child.run([sys.executable, "-c", f"len(b'x' * {200 * MIB})"])
    assert large.peak_bytes > 200 * MIB
    assert large.seconds > 0


def test_how_a_command_ended_is_told() -> None:
    ended = child.run([sys.executable, "-c", "import sys; print('no', file=sys.stderr); sys.exit(3)"])
    assert (ended.returncode, ended.stderr) == (3, "no\n")


def test_a_command_that_must_succeed_and_does_not_is_told_with_its_output() -> None:
    failing = [sys.executable, "-c", "import sys; print('so far'); print('no', file=sys.stderr); sys.exit(3)"]
    with pytest.raises(KandinskyBatchError, match=r"^planning ended with 3:\nso far\nno\n$"):
        child.run_checked("planning", failing)


def test_a_command_runs_in_the_folder_and_the_environment_that_are_named(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os; print(os.getcwd(), os.environ['NAMED'])"]
    ended = child.run_checked("it", command, tmp_path, {**os.environ, "NAMED": "so"})
    assert ended.stdout == f"{tmp_path.resolve()} so\n"
