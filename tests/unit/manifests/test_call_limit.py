"""How many samples a call may have: rows and pixels, and never none."""

from __future__ import annotations

import pytest

from manifests.call_limit import CallLimit


@pytest.mark.parametrize(
    ("pixels", "rows"),
    [
        (None, (16, 16, 16, 16)),
        (1024 * 1024 * 4, (16, 16, 4, 3)),
        (1024 * 1024 * 4 - 1, (16, 15, 3, 3)),
        (512 * 512, (4, 1, 1, 1)),
        (1, (1, 1, 1, 1)),
    ],
)
def test_the_smaller_of_both_bounds_and_one_in_any_case(pixels: int | None, rows: tuple[int, ...]) -> None:
    limit = CallLimit(16, pixels)
    sizes = ((256, 256), (512, 512), (1024, 1024), (1024, 1152))
    assert tuple(limit.of(*size) for size in sizes) == rows


def test_a_person_reads_both() -> None:
    assert [str(CallLimit(4)), str(CallLimit(4, 4194304))] == ["4 images", "4 images and 4,194,304 pixels"]
