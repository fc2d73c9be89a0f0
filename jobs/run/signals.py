"""SIGTERM and SIGINT: what is on the devices may be finished, whole shards are sealed, then the run ends.

A rented machine is taken away with SIGTERM and some notice; a person presses Ctrl-C. Either way a batch that is
being made is worth waiting for, up to `--grace` seconds. A second signal ends the run at once; even that loses
nothing but the batches in flight.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from manifests.errors import KandinskyBatchError

SIGNALS = (signal.SIGTERM, signal.SIGINT)

#: News of a finished batch takes about so long through the engine; what comes sooner was finished before the signal.
NEWS_S = 2.0

#: A run that was asked to end, and in which no batch is on a device or behind it for so long, has nothing to wait for:
#: its batches wait for their inputs, which may never come.
IDLE_S = 5.0


class RunInterrupted(KeyboardInterrupt):
    """The run ends because it was asked to. Not an `Exception`, so that nobody who handles those holds it up."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell reports for a process that this signal ended."""
        return 128 + self.number


class StopNowError(KandinskyBatchError):
    """The engine must end now, because the run was asked to stop; it becomes `RunInterrupted` outside of it."""


class Stop:
    """Knows whether the run was asked to stop, and when it must; a context manager around all that may take long.

    Args:
        grace: seconds from the signal until the run ends, whatever is in flight.
        notify: hears what happens.
    """

    def __init__(self, grace: float, notify: Callable[[str], None]) -> None:
        self._grace = grace
        self._notify = notify
        self._former: dict[int, Any] = {}
        self._number: int | None = None
        self._asked_at = 0.0
        #: The signal that has ended the run before anything was in flight.
        self._raised: int | None = None
        #: Called with every batch that comes; may end the run for reasons of its own.
        self.also: Callable[[], None] = lambda: None
        #: Batches to wait for after the signal; None while none is in flight.
        self._awaited: int | None = None
        self._now = False
        #: Since when nothing was being worked on, after the signal.
        self._idle_since: float | None = None

    def __enter__(self) -> Stop:
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._former:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in self._former.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if self._raised is not None and isinstance(error, Exception):
            # Raised in the middle of Ray's start, which may turn it into an error of its own.
            raise RunInterrupted(self._raised) from error
        if isinstance(error, SystemExit):
            # While Ray starts, the signal is Ray's, which leaves with the signal's number or with 1 as an exit code.
            raise RunInterrupted(signal.SIGTERM) from error

    def listen(self) -> None:
        """Take the signals; again after whoever took them away, as Ray does when it starts."""
        # Python hands signals to the main thread alone; elsewhere, as in a notebook, whoever is there has them.
        if threading.current_thread() is not threading.main_thread():
            return
        for number, handler in ((signal.SIGALRM, self._time_is_up), *((number, self._asked) for number in SIGNALS)):
            former = signal.signal(number, handler)
            self._former.setdefault(number, former)
        if self._raised is not None:
            # Whoever it was raised to has lost it.
            raise RunInterrupted(self._raised)

    def wait_for(self, batches: int) -> None:
        """From now on a signal waits until so many more batches have come, one for each device that makes one."""
        self._awaited = batches

    @property
    def asked(self) -> bool:
        """True where the run was asked to stop."""
        return self._number is not None

    def came(self) -> bool:
        """A batch came; true where the run shall end now because enough have."""
        self.also()
        if self._number is None or self._awaited is None:
            return False
        if time.monotonic() - self._asked_at > NEWS_S:
            self._awaited -= 1
        return self._awaited <= 0

    def look(self, working: int | None = None) -> None:
        """Asked now and then while the engine runs, from any thread.

        Args:
            working: batches that are worked on behind the inputs, where that is known.

        Raises:
            StopNowError: there is no more time, or nothing to wait for.
        """
        if self._number is not None and working is not None:
            now = time.monotonic()
            self._idle_since = None if working else self._idle_since or now
            self._now |= self._idle_since is not None and now - self._idle_since >= IDLE_S
        if self._now:
            raise StopNowError("asked to stop")

    def check(self) -> None:
        """End the run here if it was asked to.

        Raises:
            RunInterrupted: it was.
        """
        if self._number is not None:
            raise RunInterrupted(self._number)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self._awaited is None:
            self._raised = number
            raise RunInterrupted(number)
        # Never raised while the engine runs: Ray may wait in C++ then, and turns it into something else.
        if self._number is not None or self._grace <= 0:
            self._number, self._now = self._number or number, True
            return
        self._number = number
        self._asked_at = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, self._grace)
        # Not here: a handler may run in the middle of anything, the progress bar's lock included.
        words = f"{signal.Signals(number).name}: finishing what is in flight, for {self._grace:g} s at most"
        threading.Thread(target=self._notify, args=(f"{words}; once more to stop at once",), daemon=True).start()

    def _time_is_up(self, number: int, frame: FrameType | None) -> None:
        self._now = True
