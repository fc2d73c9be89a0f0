"""The memory of a measured command is its own, whatever the process that starts it holds."""

from __future__ import annotations

import sys

from jobs.benchmarks import child

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
