"""Groups are connected components, named by their smallest member; places within them follow scores."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from jobs.ranking.groups import Groups, places_within


def test_groups_are_the_components_of_the_pairs_in_whatever_order_they_come() -> None:
    rng = np.random.default_rng(3)
    pairs = rng.integers(0, 500, (2, 300))
    components = connected_components(coo_array((np.ones(300), pairs), (500, 500)), directed=False)[1]
    meant = [int(np.flatnonzero(components == one)[0]) for one in components]
    assert 20 < len(set(meant)) < 480
    for order in (np.arange(300), rng.permutation(300)):
        groups = Groups(500)
        for part in np.array_split(order, 7):
            groups.join(pairs[0, part], pairs[1, part])
        assert groups.smallest().tolist() == meant


def test_a_long_chain_is_one_group() -> None:
    groups = Groups(10_000)
    groups.join(np.arange(9999)[::-1], np.arange(1, 10_000)[::-1])
    assert set(groups.smallest().tolist()) == {0}


def test_the_highest_score_is_first_and_none_last() -> None:
    groups = np.array([0, 5, 0, 0, 5, 0])
    scores = np.array([0.1, 1.0, np.nan, 0.7, 1.0, 0.3])
    assert places_within(groups, scores).tolist() == [2, 0, 3, 0, 1, 1]
