"""What is done where Ray ends processes for want of memory: nobody is blamed while the run can do with less."""

from __future__ import annotations

from workers.fault_tolerance.memory import DEATHS, Request, Shortage, What

ONE, TWO = ("decoder", 0, 1), ("decoder", 0, 2)
WHY = "out of memory: the process of it was ended 2 times"


def starve(shortage: Shortage, what: What = ONE, times: int = DEATHS) -> list[bool]:
    return [shortage.excuses(what, "the process of it") for _ in range(times)]


def test_relief_is_asked_for_when_the_same_batch_was_met_twice() -> None:
    shortage = Shortage()
    assert starve(shortage, ONE, 1) == starve(shortage, TWO, 1) == [True]
    shortage.passed(ONE)
    assert starve(shortage, ONE, 1) == [True]
    assert shortage.request is None
    starve(shortage, TWO, 1)
    assert shortage.request == Request(WHY, by_pools=True)


def test_pools_give_first_then_the_batch_is_halved_and_then_it_is_a_death_like_any_other() -> None:
    shortage = Shortage()
    sizes = []
    for pools in ("1 prior, then 1 decoder actors", None, None, None):
        assert all(starve(shortage, times=20)), "nobody is blamed while relief is on its way"
        assert shortage.request == Request(WHY, by_pools=pools is not None)
        shortage.relieve(pools, 4)
        sizes.append(shortage.at_most(ONE))
    assert sizes == [None, 2, 1, 1]
    assert shortage.relief == [
        f"{WHY}; going on with 1 prior, then 1 decoder actors",
        f"{WHY}; it is made in calls of 2 samples at most, whose pixels may differ by one level of 255",
        f"{WHY}; it is made in calls of 1 sample, whose pixels may differ by one level of 255",
        f"{WHY}; it cannot do with less, so the next time is held against it",
    ]
    assert starve(shortage) == [False, False]
    assert all(starve(shortage, TWO)), "another batch is none of it"


def test_calls_that_do_are_made_of_all_later_batches_of_the_stage() -> None:
    shortage = Shortage()
    starve(shortage)
    shortage.relieve(None, 8)
    assert (shortage.at_most(ONE), shortage.at_most(TWO)) == (4, None)
    shortage.passed(ONE)
    assert (shortage.at_most(TWO), shortage.at_most(("prior", 0, 2))) == (4, None)
    assert shortage.relief[-1] == "out of memory: all calls of decoder have 4 samples at most from here on, which does"
    starve(shortage, TWO)
    shortage.relieve(None, 8)
    assert shortage.at_most(TWO) == 2


def test_a_batch_with_a_row_that_takes_everything_makes_no_other_calls_smaller() -> None:
    shortage = Shortage()
    for _ in range(2):
        starve(shortage)
        shortage.relieve(None, 2)
    assert starve(shortage, times=1) == [False]
    shortage.passed(ONE)
    assert shortage.at_most(TWO) is None
    assert starve(shortage, times=1) == [True], "it begins anew"


def test_relief_that_nobody_asks_for_or_that_is_given_twice_changes_nothing() -> None:
    shortage = Shortage()
    assert shortage.relieve("pools", 4) == ""
    starve(shortage)
    assert shortage.relieve(None, 4) == shortage.relieve(None, 4)
    assert (shortage.at_most(ONE), len(shortage.relief)) == (2, 1)


def test_calls_of_a_device_that_fills_them_up_are_not_halved_nor_is_an_actor_that_loads() -> None:
    for what, batch_size in ((ONE, None), ("an actor", 8)):
        shortage = Shortage()
        starve(shortage, what)
        assert "cannot do with less" in shortage.relieve(None, batch_size)
        assert shortage.at_most(what) is None
