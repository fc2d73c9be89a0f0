"""Waiting for the engine without being deaf: its iterator runs in a thread, and somebody looks up now and then."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

#: Items that may wait to be taken; they are receipts, which are small.
ROOM = 1024


def stream(source: Iterable[Item], look_up: Callable[[], None], every: float) -> Iterator[Item]:
    """The items of `source`, with `look_up()` called every so many seconds, also while there is none.

    The engine waits inside its iterator, for minutes if need be, and hears nothing of what `look_up` may know. What
    either of them raises is raised here. A source that is left in the middle of its waiting is left to its daemon
    thread, and ends with the engine.
    """
    waiting: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(ROOM)
    left = threading.Event()

    def put(item: Item | None, error: BaseException | None = None) -> None:
        while not left.is_set():
            try:
                waiting.put((item, error), timeout=1.0)
                return
            except queue.Full:
                continue

    def run() -> None:
        try:
            for item in source:
                put(item)
                if left.is_set():
                    return
            put(None, StopIteration())
        except BaseException as error:
            put(None, error)

    threading.Thread(target=run, name="engine", daemon=True).start()
    try:
        while True:
            try:
                item, error = waiting.get(timeout=every)
            except queue.Empty:
                look_up()
                continue
            if isinstance(error, StopIteration):
                return
            if error is not None:
                # The engine's error may be a mere consequence.
                look_up()
                raise error
            yield item  # type: ignore[misc]  # None only comes with an error
    finally:
        left.set()
