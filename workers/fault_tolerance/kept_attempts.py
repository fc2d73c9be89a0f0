"""The run's attempts as a Ray actor whose process may be lost like any other: the next one goes on where it was.

Ray ends processes where a node runs out of memory, as many as it takes, and the actor may be among them, at the same
moment as those that it keeps the books of. So every call that changes the books is written to a file of the driver's
node before it is answered; Ray repeats one that was not answered. The process that Ray starts in place of a lost one
reads the file, and notes that loss as it notes any other.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Concatenate, ParamSpec, TypeVar

from workers.fault_tolerance.attempts import Attempts, Worker
from workers.fault_tolerance.guard import this_worker
from workers.fault_tolerance.losses import engines_words, lost_nodes
from workers.fault_tolerance.same_source import own_source

#: The actor's name among those of the stages.
STAGE = "attempts"

#: Calls that are written before the state takes their place.
CALLS = 1000

#: When a call was answered, its name, its arguments and those by name.
Call = tuple[float, str, tuple[Any, ...], dict[str, Any]]

P = ParamSpec("P")
R = TypeVar("R")


class Journal:
    """A file with a state and the calls that have changed it since.

    It is not synced: it is for the death of a process, and whatever takes the machine takes the run.

    Args:
        path: of the file; its folder exists.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._calls = 0

    def read(self) -> tuple[Any, list[Call]] | None:
        """The state and the calls since; None where nothing was written."""
        calls: list[Call] = []
        try:
            with open(self._path, "rb") as file:
                state = pickle.load(file)
                # The last one may have been cut off, and was not answered then.
                with contextlib.suppress(EOFError, pickle.UnpicklingError):
                    while True:
                        calls.append(pickle.load(file))
        except FileNotFoundError:
            return None
        return state, calls

    def begin(self, state: object) -> None:
        """Write a state, in place of all that was there."""
        self.close()
        new = self._path + ".new"
        self._file = open(new, "wb")  # noqa: SIM115  it stays open for the calls
        self._append(state)
        os.replace(new, self._path)
        self._calls = 0

    def add(self, call: Call) -> None:
        """Write a call; does nothing after `close`."""
        if self._file is not None:
            self._append(call)
            self._calls += 1

    @property
    def full(self) -> bool:
        """It is time for a new state."""
        return self._calls >= CALLS

    def close(self) -> None:
        """Write no more."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # of a disk that is full
                self._file.close()
            self._file = None

    def remove(self) -> None:
        """Have it forgotten."""
        self.close()
        for path in (self._path, self._path + ".new"):
            with contextlib.suppress(OSError):
                os.remove(path)

    def _append(self, thing: object) -> None:
        if self._file is not None:
            self._file.write(pickle.dumps(thing))
            self._file.flush()


class _Clock:
    """Tells seconds, and while calls are repeated the seconds of then. One boot of a machine has one such clock."""

    then: float | None = None

    def __call__(self) -> float:
        return time.monotonic() if self.then is None else self.then


def _kept(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[KeptAttempts, P], R]:
    """As a method of `Attempts`, and written down before it is answered."""

    @functools.wraps(method)
    def call(self: KeptAttempts, /, *arguments: P.args, **named: P.kwargs) -> R:
        answer = method(self, *arguments, **named)
        self._write(method.__name__, arguments, named)
        return answer

    return call


class KeptAttempts(Attempts):
    """`Attempts` that outlive their process.

    Args:
        path: a file of this machine; its folder exists.
        who: tells this process.
        lost_nodes, last_words: as `Attempts` has them; functions of modules.
    """

    def __init__(
        self,
        path: str,
        who: Callable[[], Worker] = lambda: this_worker(STAGE),
        lost_nodes: Callable[[], set[str]] = lost_nodes,
        last_words: Callable[[str], str] = engines_words,
    ) -> None:
        self._time = _Clock()
        super().__init__(lost_nodes, last_words, own_source(), self._time)
        self._keeper = who()
        self._journal = Journal(path)
        found = self._journal.read()
        if found is not None:
            self._go_on(*found)
        self._begin_journal()

    begin = _kept(Attempts.begin)
    trying = _kept(Attempts.trying)
    probed = _kept(Attempts.probed)
    end = _kept(Attempts.end)
    say = _kept(Attempts.say)
    starting = _kept(Attempts.starting)
    ready = _kept(Attempts.ready)
    compiling = _kept(Attempts.compiling)
    compiled = _kept(Attempts.compiled)
    start_failed = _kept(Attempts.start_failed)
    pipeline_ended = _kept(Attempts.pipeline_ended)
    relieve = _kept(Attempts.relieve)

    def _go_on(self, state: dict[str, Any], calls: list[Call]) -> None:
        keeper = self._keeper
        self.__dict__.update(state)
        for self._time.then, name, arguments, named in calls:
            getattr(Attempts, name)(self, *arguments, **named)
        self._time.then = None
        self._losses.note(STAGE, self._keeper, "another one goes on from what it has written down")
        self._keeper = keeper

    def _write(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        try:
            self._journal.add((self._time(), name, arguments, named))
        except OSError as error:
            self._do_without(error)
        if self._journal.full:
            self._begin_journal()

    def _begin_journal(self) -> None:
        state = {name: value for name, value in self.__dict__.items() if name != "_journal"}
        try:
            self._journal.begin(state)
        except OSError as error:
            self._do_without(error)

    def _do_without(self, error: OSError) -> None:
        # What is there would be taken for the truth, and gets older with every call.
        self._journal.remove()
        self._fallbacks[f"{self._keeper.name}: attempts are counted, but not written down any more: {error}"] = None


def session_folder() -> str | None:
    """Where Ray keeps sockets and logs of this node's processes; None where this process is not connected to Ray."""
    from ray._private.worker import global_worker

    return None if global_worker.node is None else str(global_worker.node.get_session_dir_path())


@contextmanager
def start_attempts() -> Iterator[Any]:
    """`KeptAttempts` as a Ray actor on the node that this is called on; its handle goes to every guard."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # This process and the node's workers can both write to it, whoever started them.
    path = os.path.join(session_folder() or tempfile.gettempdir(), f"kandinsky_attempts_{uuid.uuid4().hex}")
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(KeptAttempts)
    try:
        yield actor.remote(path)
    finally:
        Journal(path).remove()
