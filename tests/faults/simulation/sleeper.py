"""A job in a process of its own that is stopped in its work, like a paused machine, and wakes up much later."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest.mock import patch

from jobs.leases import fence, lease
from jobs.leases.fence import LeaseLostError
from manifests.config import RunConfig
from manifests.storage import writes
from tests.faults.simulation.engine import Engine, generate

#: How a job ends whose lease was taken over.
LOST = 7

#: Seconds that its processes believe to have the lease after they asked.
FRESH_S = 0.2

# Imports once what each of these processes needs, and has no threads.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


def asleep(
    config: RunConfig, stop_at: int, environment: Mapping[str, str], late: bool = False, fenced: bool = True
) -> BaseProcess | None:
    """Start a job of which two rows fail; returns when it has stopped itself, None where it ended before.

    Args:
        stop_at: on which of its changes of a file.
        late: when it has been told that it may make it, and not before it asks.
        fenced: it asks at all.
    """
    process = _context.Process(target=_run, args=(config, stop_at, dict(environment), late, fenced))
    process.start()
    while process.is_alive():
        with suppress(OSError):
            if Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
                time.sleep(FRESH_S)
                return process
        time.sleep(0.005)
    process.join()
    assert process.exitcode == 0
    return None


def wake(process: BaseProcess) -> int | None:
    """Let it go on, to its end; returns how it ended."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGCONT)
    process.join(60)
    return process.exitcode


def _run(config: RunConfig, stop_at: int, environment: Mapping[str, str], late: bool, fenced: bool) -> None:
    os.environ.update(environment)
    changes, ask = 0, writes._ask

    def ask_and_stop() -> None:
        nonlocal changes
        # Not the lease's own beat, which comes when it likes.
        if writes._fence.get() is None:
            return
        changes += 1
        if late:
            ask()
        if changes == stop_at:
            os.kill(os.getpid(), signal.SIGSTOP)
        if fenced and not late:
            ask()

    quick = patch.object(fence, "FRESH_S", FRESH_S), patch.object(lease, "BEAT_S", 0.05)
    with quick[0], quick[1], patch.object(writes, "_ask", ask_and_stop):
        try:
            generate(config, Engine(fails=("r1", "r4")))
        except LeaseLostError:
            sys.exit(LOST)
