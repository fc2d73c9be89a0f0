"""Things that belong together because somebody joined them in pairs, and the places of things within their groups."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]


class Groups:
    """Connected components of so many things, joined pair by pair (union-find on arrays).

    The same pairs give the same groups, in whatever order they come.
    """

    def __init__(self, count: int) -> None:
        #: Never above a thing's own number, so that every root is the smallest of its group.
        self._parents: Places = np.arange(count)

    def join(self, one: Places, other: Places) -> None:
        """Put the groups of `one[i]` and `other[i]` together, for every i."""
        while len(one):
            one, other = self._roots(one), self._roots(other)
            apart = one != other
            one, other = one[apart], other[apart]
            # Of several that want the same root the smallest gets it; the others are still apart the next time.
            np.minimum.at(self._parents, np.maximum(one, other), np.minimum(one, other))

    def smallest(self) -> Places:
        """Of each thing the smallest one of its group."""
        return self._roots(np.arange(len(self._parents)))

    def _roots(self, things: Places) -> Places:
        roots = self._parents[things]
        while not np.array_equal(further := self._parents[roots], roots):
            roots = further
        self._parents[things] = roots
        return roots


def places_within(groups: Places, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """The place of each thing within its group, from 0: highest score first, those without one (NaN) last, equal ones
    in their order.
    """
    order = np.lexsort((np.arange(len(groups)), -np.nan_to_num(scores, nan=-np.inf), groups))
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    sizes = np.diff(starts, append=len(groups))
    places = np.empty(len(groups), np.int32)
    places[order] = np.arange(len(groups)) - np.repeat(starts, sizes)
    return places
