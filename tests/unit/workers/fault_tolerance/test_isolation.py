"""A batch that raises is repeated sample by sample, in the same shape, and only those that raise are failed."""

from __future__ import annotations

from collections.abc import Sequence

from workers.fault_tolerance.isolation import call_or_isolate


def test_a_batch_that_works_is_called_once() -> None:
    calls: list[list[int]] = []

    def call(positions: Sequence[int]) -> list[int]:
        calls.append(list(positions))
        return [position * 10 for position in positions]

    assert call_or_isolate(call, [1, 4], "failed_to_embed") == ({1: 10, 4: 40}, {})
    assert calls == [[1, 4]]


def test_repeated_samples_keep_the_shape_of_the_call_and_their_place_in_it() -> None:
    def call(positions: Sequence[int]) -> list[tuple[int, int]]:
        if 7 in positions:
            raise ValueError("seven")
        assert len(positions) == 3
        return [(position, place) for place, position in enumerate(positions)]

    results, errors = call_or_isolate(call, [5, 7, 9], "failed_to_generate")
    assert results == {5: (5, 0), 9: (9, 2)}
    assert {position: (error.status, error.message) for position, error in errors.items()} == {
        7: ("failed_to_generate", "ValueError: seven")
    }


def test_what_does_not_fit_as_a_batch_may_fit_alone() -> None:
    def call(positions: Sequence[int]) -> list[int]:
        if len(positions) > 1:
            raise MemoryError
        return list(positions)

    assert call_or_isolate(call, [0, 1], "failed_to_generate") == ({0: 0, 1: 1}, {})
