"""The queue before the decoder pool: known shapes first, nobody idle, nothing left behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest

from jobs.engine.affinity import OVERTAKEN, ByShape
from manifests.batch import SHAPE_KEY


@dataclass(frozen=True, eq=False)
class Bundle:
    """What the queue looks at."""

    shape: str
    block_refs: tuple[int, ...] = (0,)

    @property
    def schema(self) -> pa.Schema | None:
        if self.shape == "untold":
            return None
        return pa.schema([], metadata={SHAPE_KEY: self.shape.encode()} if self.shape else {})

    def size_bytes(self) -> int:
        return 1

    def num_rows(self) -> int:
        return 1


@dataclass
class Pool:
    """Actors by name with the number of batches that each has."""

    _alive_actors_to_in_flight_tasks_heap: dict[str, int] = field(default_factory=dict)

    def select_actors(self, bundle: Any = None, actor_locality_enabled: bool = False) -> str | None:
        ranks = self._alive_actors_to_in_flight_tasks_heap
        return min(ranks, key=lambda actor: ranks[actor], default=None)

    def current_size(self) -> int:
        return len(self._alive_actors_to_in_flight_tasks_heap)


class Line:
    """The queue with a pool of actors that do one batch at a time."""

    def __init__(self, *actors: str) -> None:
        self.pool = Pool(dict.fromkeys(actors, 0))
        self.queue = ByShape(self.pool)

    def put(self, shapes: Iterable[str]) -> None:
        for shape in shapes:
            self.queue.add(Bundle(shape))  # type: ignore[arg-type]

    def next(self) -> str:
        """Hands the next batch out: actor and shape."""
        bundle = self.queue.get_next()
        actor = self.pool.select_actors(bundle)
        assert actor is not None
        self.pool._alive_actors_to_in_flight_tasks_heap[actor] += 1
        return f"{actor}:{bundle.shape}"  # type: ignore[attr-defined]

    def done(self, actor: str) -> None:
        self.pool._alive_actors_to_in_flight_tasks_heap[actor] -= 1


def test_an_actor_gets_the_oldest_batch_of_a_shape_it_has_had() -> None:
    line = Line("p", "q")
    line.put("AB")
    assert [line.next(), line.next()] == ["p:A", "q:B"]
    line.put("ABAB")
    line.done("q")
    assert line.next() == "q:B"
    line.done("p")
    assert line.next() == "p:A"


def test_nobody_waits_for_a_batch_that_another_could_make() -> None:
    line = Line("p", "q")
    line.put("AAB")
    # The second one has no shape yet, and the first has enough to do.
    assert [line.next(), line.next()] == ["p:A", "q:A"]
    line.done("p")
    assert line.next() == "p:B"


def test_of_those_that_are_idle_the_one_that_knows_a_shape_is_taken() -> None:
    line = Line("p", "q", "r")
    line.put("ABC")
    for _ in range(3):
        line.done(line.next().split(":")[0])
    line.put("CBA")
    assert {line.next(), line.next(), line.next()} == {"p:A", "q:B", "r:C"}


def test_a_new_shape_goes_to_the_idle_actor_that_knows_fewest() -> None:
    line = Line("p", "q")
    line.put("A")
    line.done(line.next().split(":")[0])
    line.put("B")
    assert line.next() == "q:B"


def test_no_batch_is_overtaken_for_ever() -> None:
    line = Line("p")
    line.put("A")
    line.done(line.next().split(":")[0])
    line.put("B" + "A" * 3 * OVERTAKEN)
    order = []
    for _ in range(2 * OVERTAKEN):
        order.append(line.next())
        line.done("p")
    assert order.index("p:B") == OVERTAKEN


def test_the_sums_that_ray_data_keeps_stay_right() -> None:
    line = Line("p")
    line.put("ABA")
    line.next()
    line.next()
    assert (len(line.queue), line.queue.num_rows(), line.queue.estimate_size_bytes()) == (1, 1, 1)
    with pytest.raises(IndexError):
        Line("p").queue.get_next()
    assert isinstance(line.queue._inner, deque)


def test_who_is_asked_without_a_batch_answers_as_before() -> None:
    line = Line("p", "q")
    assert line.pool.select_actors() == "p"
    line.put([""])
    assert line.next() == "p:"


def test_batches_whose_shape_ray_data_does_not_tell_come_in_their_order() -> None:
    line = Line("a")
    line.put(["small", "untold", "untold"])
    assert [line.next() for _ in range(3)] == ["a:small", "a:untold", "a:untold"]
