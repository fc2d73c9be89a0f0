"""Rules as a command line spells them."""

from __future__ import annotations

import pytest

from jobs.ranking.rules import Rules, parse
from manifests.errors import UsageError


def test_one_rule_and_both() -> None:
    assert parse("image_phash:4", None, None) == Rules(bits=4)
    assert parse("clip:0.95, image_phash:0", "aesthetic", "clip_similarity") == Rules(
        bits=0, cosine=0.95, best_by="aesthetic", best_of_request="clip_similarity"
    )
    assert parse(None, None, None).columns == ()
    assert parse("clip:0.9", None, "x").columns == ("duplicate_group", "duplicate_rank", "rank_in_request")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("image_phash", "should be image_phash:BITS, clip:COSINE, or both"),
        ("image_phash:many", "got 'image_phash:many'"),
        ("image_phash:1,image_phash:2", "should be"),
        ("pixels:4", "should be"),
        ("", "should be"),
        ("image_phash:11", "takes 0 to 10 bits of 64; got 11"),
        ("image_phash:-1", "got -1"),
        ("clip:1.5", "a cosine between 0 and 1, such as 0.95; got 1.5"),
        ("clip:nan", "got nan"),
    ],
)
def test_what_is_of_no_use_gets_a_sentence(words: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse(words, None, None)


def test_an_order_needs_something_to_order() -> None:
    with pytest.raises(UsageError, match="--best-by: goes with --duplicates only"):
        parse(None, "clip_similarity", None)
