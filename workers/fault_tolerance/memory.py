"""Want of memory: what Ray ends for it is nobody's fault as long as the run can do with less at a time.

Ray ends the newest processes first, which need not be those that have the memory: a batch of small images may be ended
for the weights of an actor beside it. So a death for want of memory is not held against a batch, a row or a device:

    twice the same batch, or the same actor that loads its model  ->  the driver is asked for relief
    relief  ->  an actor less, then pools that take turns, then calls of half as many samples
    nothing is left to give  ->  it is a death like any other
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

#: Deaths of one batch's processes, or of one actor that starts, before something is done.
DEATHS = 2


class Shortage:
    """What was ended for want of memory, and what was done about it.

    Attributes:
        asked: why the driver is to give relief, "" where it is not to.
        at_most: samples that one call may have; None: as many as its batch has.
        relief: what was done, in lines for a person.
    """

    def __init__(self) -> None:
        self._deaths: Counter[Hashable] = Counter()
        self._given_all = False
        self.asked = ""
        self.at_most: int | None = None
        self.relief: list[str] = []

    def excuses(self, what: Hashable, words: str) -> bool:
        """A process was ended for want of memory; true where that is nobody's fault.

        Args:
            what: it was at.
            words: the same for a person.
        """
        if self._given_all:
            return False
        # Nothing has changed yet while relief is on its way.
        self._deaths[what] += not self.asked
        if self._deaths[what] >= DEATHS:
            self.asked = self.asked or f"out of memory: {words} was ended {DEATHS} times"
        return True

    def passed(self, what: Hashable) -> None:
        """It went well."""
        self._deaths.pop(what, None)

    def relieve(self, pools: str | None, batch_size: int | None) -> str:
        """The driver gives relief; tells in a line what is done. Does nothing where none is asked for.

        Args:
            pools: those that it goes on with, in words; None where they cannot be smaller.
            batch_size: samples of a batch; None where smaller calls would take as much.
        """
        if self.asked:
            self.relief.append(f"{self.asked}; {self._give(pools, batch_size)}")
            self.asked = ""
            self._deaths.clear()
        return self.relief[-1] if self.relief else ""

    def _give(self, pools: str | None, batch_size: int | None) -> str:
        if pools is not None:
            return f"going on with {pools}"
        size = self.at_most or batch_size or 1
        if size == 1:
            self._given_all = True
            return "the run cannot do with less, and from now on fails rows that this happens to"
        self.at_most = (size + 1) // 2
        samples = "1 sample" if self.at_most == 1 else f"{self.at_most} samples at most"
        return f"going on with calls of {samples}, whose pixels may differ by one level of 255"
