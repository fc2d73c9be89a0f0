"""Want of memory: what Ray ends for it is nobody's fault as long as the run can do with less at a time.

Ray ends the newest processes first, which need not be those that have the memory: a batch of small images may be ended
for the weights of an actor beside it. So a death for want of memory is not held against a batch, a row or a device, but
whatever meets it twice asks the driver for relief:

    first      pools with less in memory: an actor less, or the prior before the decoder; the bytes are the same
    then       the batch in calls of half as many samples, and again; where that does, all later ones in such calls
    at last    its deaths are held against it like any other, so that a row that takes all memory is found and failed

Pools give way once for each batch, because a run of many actors is not to lose them for one such row.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

#: Deaths of one batch's processes, or of one actor that starts, before something is done.
DEATHS = 2

#: A stage's name and the place of a batch in the plan; or what identifies an actor that loads its model.
What = tuple[str, int, int] | str


@dataclass(frozen=True)
class Request:
    """Relief is to be given.

    Attributes:
        words: why.
        by_pools: pools may be made smaller for it.
    """

    words: str
    by_pools: bool


class Shortage:
    """What was ended for want of memory, and what was done about it.

    Attributes:
        request: the driver is asked for relief; None where it is not.
        relief: what was done, in lines for a person.
    """

    def __init__(self) -> None:
        self._deaths: Counter[What] = Counter()
        self._asking: What = ""
        #: What pools were made smaller for.
        self._eased: set[What] = set()
        #: Samples that a call of these batches may have, and one of all batches of a stage.
        self._sizes: dict[What, int] = {}
        self._at_most: dict[str, int] = {}
        #: What could not do with less.
        self._guilty: set[What] = set()
        self.request: Request | None = None
        self.relief: list[str] = []

    def at_most(self, what: What) -> int | None:
        """Samples that one call of a batch may have; None: all that it has."""
        return self._sizes.get(what, self._at_most.get(what[0]))

    def excuses(self, what: What, words: str) -> bool:
        """A process was ended for want of memory; true where that is nobody's fault.

        Args:
            what: it was at.
            words: the same for a person.
        """
        if what in self._guilty:
            return False
        if self.request is None:
            # Nothing has changed yet while relief is on its way.
            self._deaths[what] += 1
            if self._deaths[what] >= DEATHS:
                why = f"out of memory: {words} was ended {DEATHS} times"
                self._asking, self.request = what, Request(why, what not in self._eased)
        return True

    def passed(self, what: What) -> None:
        """It went well, or its rows were found to be at fault."""
        self._deaths.pop(what, None)
        self._eased.discard(what)
        size = self._sizes.pop(what, None)
        if size is not None and what not in self._guilty and size < self._at_most.get(what[0], size + 1):
            self._at_most[what[0]] = size
            self.relief.append(f"out of memory: all calls of {what[0]} have {_samples(size)} from here on, which does")
        self._guilty.discard(what)

    def relieve(self, pools: str | None, batch_size: int | None) -> str:
        """The driver gives relief; tells in a line what is done. Does nothing where none is asked for.

        Args:
            pools: those that it goes on with, in words; None where they stay as they are.
            batch_size: samples of a batch; None where smaller calls would take as much.
        """
        if self.request is not None:
            self.relief.append(f"{self.request.words}; {self._give(self._asking, pools, batch_size)}")
            self.request = None
            self._deaths.clear()
        return self.relief[-1] if self.relief else ""

    def _give(self, what: What, pools: str | None, batch_size: int | None) -> str:
        if pools is not None:
            self._eased.add(what)
            return f"going on with {pools}"
        size = (self.at_most(what) or batch_size or 1) if isinstance(what, tuple) else 1
        if size == 1:
            self._guilty.add(what)
            return "it cannot do with less, so the next time is held against it"
        self._sizes[what] = (size + 1) // 2
        return f"it is made in calls of {_samples(self._sizes[what])}, whose pixels may differ by one level of 255"


def _samples(size: int) -> str:
    return "1 sample" if size == 1 else f"{size} samples at most"
