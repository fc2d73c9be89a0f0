"""What is done where Ray ends processes for want of memory: nobody is blamed while the run can do with less."""

from __future__ import annotations

from workers.fault_tolerance.memory import DEATHS, Shortage


def starve(shortage: Shortage, what: str = "batch 1", times: int = DEATHS) -> list[bool]:
    return [shortage.excuses(what, f"the process of {what}") for _ in range(times)]


def test_relief_is_asked_for_when_the_same_batch_was_met_twice() -> None:
    shortage = Shortage()
    assert starve(shortage, "batch 1", 1) == starve(shortage, "batch 2", 1) == [True]
    assert shortage.asked == ""
    shortage.passed("batch 1")
    assert starve(shortage, "batch 1", 1) == [True]
    assert shortage.asked == ""
    starve(shortage, "batch 2", 1)
    assert shortage.asked == "out of memory: the process of batch 2 was ended 2 times"


def test_pools_give_first_then_calls_are_halved_and_then_it_is_a_death_like_any_other() -> None:
    shortage = Shortage()
    said, sizes = [], []
    for pools in ("1 prior and 1 decoder actors", "1 prior, then 1 decoder actors", None, None, None):
        assert all(starve(shortage, times=20)), "nobody is blamed while relief is on its way"
        said.append(shortage.relieve(pools, 4))
        sizes.append(shortage.at_most)
    assert sizes == [None, None, 2, 1, 1]
    assert shortage.relief == said
    assert (
        said[0] == "out of memory: the process of batch 1 was ended 2 times; going on with 1 prior and 1 decoder actors"
    )
    assert "calls of 2 samples at most" in said[2]
    assert "cannot do with less" in said[4]
    assert starve(shortage) == [False, False]


def test_relief_that_nobody_asks_for_or_that_is_given_twice_changes_nothing() -> None:
    shortage = Shortage()
    assert shortage.relieve("pools", 4) == ""
    starve(shortage)
    assert shortage.relieve(None, 4) == shortage.relieve(None, 4)
    assert (shortage.at_most, len(shortage.relief)) == (2, 1)


def test_calls_of_a_device_that_fills_them_up_are_not_halved() -> None:
    shortage = Shortage()
    starve(shortage)
    assert "cannot do with less" in shortage.relieve(None, None)
    assert shortage.at_most is None
