"""Messages: what many of them share."""

from __future__ import annotations

import pytest

from manifests.errors import general


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("height: 500 is not a multiple of 64; use 448", "height: 77 is not a multiple of 64; use 64"),
        ("image (/a/b (1).png) does not exist; correct it", "image (/c.png) does not exist; correct it"),
        ("image (s3://a/x.png) cannot be read (E: 403)", "image (s3://b/y.png) cannot be read (E: no (more) time)"),
        ("task: 'paint' is not a task", "task: 'draw' is not a task"),
    ],
)
def test_messages_of_one_kind_share_what_is_no_rows_own(one: str, other: str) -> None:
    assert general(one) == general(other)


def test_messages_of_two_kinds_differ() -> None:
    assert general("image (/a.png) does not exist; correct it") != general("mask is empty")
    assert general("image (/a.png) is a folder") != general("image (/a.png) is empty (0 bytes)")
