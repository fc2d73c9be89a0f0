"""Values spelled as text: a whole number is one however it is spelled, words for nothing are null."""

from __future__ import annotations

import uuid

import pyarrow as pa
import pytest

from manifests.requests import casting

WHOLE = ["128", "128.0", " 128 ", "+128", "0128", "1.28e2", "12800e-2", "128.", "+128.00"]
NOTHING = ["", " ", "nan", "NaN", "None", "null", "NULL", "NA", "N/A", "<NA>", "#N/A"]
NO_NUMBER = ["128px", "128.5", "1e-2", "1,28", "１２８", "+-128", "--128", "1_28", "inf", "1e99", "e2", ".", "true"]


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64()])
@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int8(), pa.string())])
def test_whole_numbers_and_words_for_nothing_are_read_and_other_texts_are_not(
    kind: pa.DataType, text: pa.DataType
) -> None:
    cast = casting.to_number(pa.array([*WHOLE, *NOTHING, *NO_NUMBER]).cast(text), kind)
    assert cast.array.to_pylist() == [128] * len(WHOLE) + [None] * (len(NOTHING) + len(NO_NUMBER))
    assert cast.bad.tolist() == list(range(len(WHOLE) + len(NOTHING), len(cast.array)))


def test_a_whole_number_beyond_doubles_keeps_every_digit() -> None:
    seeds = ["18446744073709551615.0", "9007199254740993.0", "1.8446744073709551615e19"]
    assert casting.to_number(pa.array(seeds), pa.uint64()).array.to_pylist() == [2**64 - 1, 2**53 + 1, 2**64 - 1]


def test_numbers_with_fractions_know_the_same_words_for_nothing() -> None:
    cast = casting.to_number(pa.array(["4.5", "+4.5", "None", "", "4,5"]), pa.float64())
    assert cast.array.to_pylist() == [4.5, 4.5, None, None, None]
    assert cast.bad.tolist() == [4]


def test_uuids_become_the_text_that_everybody_writes() -> None:
    ids = [uuid.UUID(int=2**127 + 7), None, uuid.UUID(int=0)]
    column = pa.array([one and one.bytes for one in ids], pa.uuid())
    expected = [one and str(one) for one in ids]
    assert casting.to_text(column).array.to_pylist() == expected
    assert casting.to_text(column[1:]).array.to_pylist() == expected[1:]
    assert casting.to_text(pa.chunked_array([column, column])).array.to_pylist() == expected * 2


def test_conditions_may_be_json_and_only_lists_of_objects_are() -> None:
    good = '[{"text": "a", "weight": 1}, {"image": "b.png", "weight": 0.5}, {"image": {"path": "c.png"}, "note": 1}]'
    bad = [
        "{}",
        "[1]",
        '["a"]',
        "[{]",
        '[{"text": 1}]',
        '[{"weight": true}]',
        '[{"text": "\\ud800"}]',
        '[{"image": {"bytes": "x"}}]',
    ]
    cast = casting.to_conditions(pa.array([good, None, "", "null", "[]", *bad], pa.large_string()))
    first, *others = cast.array.to_pylist()
    assert [(c["text"], c["image"]["path"], c["weight"]) for c in first] == [
        ("a", None, 1.0),
        (None, "b.png", 0.5),
        (None, "c.png", None),
    ]
    assert others == [None, None, None, [], *[None] * len(bad)]
    assert cast.bad.tolist() == list(range(5, 5 + len(bad)))


def test_a_value_that_is_not_utf8_is_shown_with_what_can_be_read_of_it() -> None:
    text = pa.Array.from_buffers(pa.string(), 1, pa.array([b"ab\xff"]).buffers())
    assert casting.shown(text[0]) == "'ab\ufffd'"
