"""Validation: every rule with a row that keeps it and one that breaks it, in every type a manifest has."""

from __future__ import annotations

import datetime
import decimal
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.requests.schema import REQUEST_NAMES, TASKS
from manifests.requests.validation import Resolved, check_defaults, resolve


def config(**settings: Any) -> RunConfig:
    return RunConfig(manifest=("m.parquet",), output="out", **settings)


def check(columns: dict[str, Any], **settings: Any) -> Resolved:
    return resolve([pa.table(columns)], config(**settings))


def one(**row: Any) -> str | None:
    """The error of a manifest with a single row; a text2img with a prompt unless it says otherwise."""
    columns = {"task": "text2img", "prompt": "a cat", **row}
    return check({name: [value] for name, value in columns.items()}).errors.get(0)


IMAGE = {"image": "a.png"}
GOOD: list[dict[str, Any]] = [
    {},
    {"prompt": ""},
    {"prompt": 42},
    {"task": "img2img", **IMAGE},
    {"task": "img2img", "image": {"bytes": b"png", "path": None}},
    {"task": "img2img", "image": {"path": "a.png"}},
    {"task": "img2img", **IMAGE, "strength": 1.0},
    {"task": "img2img", **IMAGE, "strength": 0.01, "steps": 100},
    {"task": "inpaint", **IMAGE, "mask": "m.png"},
    {"task": "inpaint", **IMAGE, "mask": "m.png", "mask_polarity": " Black "},
    {"task": "interpolate", "prompt": None, "conditions": [{"text": "a"}, {"text": "b"}]},
    {"task": "interpolate", "conditions": [{"image": "a.png", "weight": 0.5}]},
    {"task": "interpolate", "conditions": [{"text": "", "weight": -1}, {"text": "b", "weight": 2}]},
    {"height": 64, "width": 4096},
    {"height": 512.0, "width": "512"},
    {"height": " 512 ", "steps": decimal.Decimal("20")},
    {"height": None, "steps": math.nan},
    {"steps": 1},
    {"steps": 1000},
    {"prior_steps": 2},
    {"guidance_scale": 0},
    {"guidance_scale": "7.5", "prior_guidance_scale": 100},
    {"num_images": 1024},
    {"seed": 0},
    {"seed": str(2**64 - 1)},
    {"seed": 42.0},
    {"id": "x"},
    {"id": 7},
    {"id": None},
    # What belongs to another task is not looked at.
    {"image": 5, "mask": 5, "mask_polarity": "green", "conditions": "no", "strength": "no"},
    {"strength": 7.0},
]

BAD: list[tuple[dict[str, Any], str]] = [
    ({"task": None}, "task: null is not a task; use one of text2img, img2img, inpaint, interpolate"),
    ({"task": "paint"}, "task: 'paint' is not a task; use one of text2img, img2img, inpaint, interpolate"),
    ({"prompt": None}, "prompt: null is missing, but this task needs one; use a text, '' for none"),
    ({"prompt": ["a"]}, "prompt: ['a'] is not text; use a string"),
    ({"prompt": b"\xff\xfe"}, "prompt: <bytes> is not text; use a string"),
    ({"negative_prompt": {"a": 1}}, "negative_prompt: {'a': 1} is not text; use a string"),
    ({"id": ""}, "id: '' is empty; use a unique name, or leave it null"),
    ({"height": 500}, "height: 500 is not a multiple of 64; use 448 or 512"),
    ({"width": 0}, "width: 0 is not a multiple of 64 from 64 to 4096; use 512"),
    ({"width": 8192}, "width: 8192 is not a multiple of 64 from 64 to 4096; use 512"),
    ({"height": "tall"}, "height: 'tall' is not a multiple of 64 from 64 to 4096; use 512"),
    ({"height": 512.5}, "height: 512.5 is not a multiple of 64"),
    ({"height": True}, "height: True is not a multiple of 64"),
    ({"steps": 0}, "steps: 0 is not a whole number from 1 to 1000; use 100"),
    ({"steps": 1001}, "steps: 1001 is not"),
    ({"steps": datetime.date(2024, 1, 1)}, "steps: datetime.date(2024, 1, 1) is not"),
    ({"prior_steps": 1}, "prior_steps: 1 is not a whole number from 2 to 1000; use 25"),
    ({"guidance_scale": -0.1}, "guidance_scale: -0.1 is not a number from 0 to 100"),
    ({"guidance_scale": math.inf}, "guidance_scale: inf is not a number from 0 to 100"),
    ({"prior_guidance_scale": 101}, "prior_guidance_scale: 101 is not a number from 0 to 100"),
    ({"num_images": 0}, "num_images: 0 is not a whole number from 1 to 1024"),
    ({"num_images": 1025}, "num_images: 1025 is not"),
    ({"seed": -1}, "seed: -1 is not a whole number from 0 to 2**64 - 1"),
    ({"seed": str(2**64)}, "seed: '18446744073709551616' is not a whole number"),
    ({"task": "img2img"}, "image: null holds no image, but this task needs one; give a location or bytes"),
    ({"task": "img2img", "image": ""}, "image: '' holds no image"),
    ({"task": "img2img", "image": {"bytes": None, "path": None}}, "holds no image"),
    ({"task": "img2img", "image": 5}, "image: 5 is neither a location nor an inline image; use a string"),
    ({"task": "img2img", "image": {"url": "x"}}, "image: {'url': 'x'} is neither a location"),
    ({"task": "img2img", **IMAGE, "strength": 0.0}, "strength: 0.0 is not a number above 0, at most 1"),
    ({"task": "img2img", **IMAGE, "strength": 1.1}, "strength: 1.1 is not"),
    ({"task": "img2img", **IMAGE, "strength": 0.3, "steps": 3}, "strength: 0.3 of 3 steps leaves no step"),
    ({"task": "img2img", **IMAGE, "strength": 0.0015, "steps": 1000}, "strength: 0.0015 is below the first"),
    ({"task": "inpaint", **IMAGE}, "mask: null holds no mask"),
    ({"task": "inpaint", "mask": "m.png"}, "image: null holds no image"),
    ({"task": "inpaint", **IMAGE, "mask": "m", "mask_polarity": "grey"}, "mask_polarity: 'grey' is not a"),
    ({"task": "interpolate"}, "conditions: null names nothing to interpolate; list at least one"),
    ({"task": "interpolate", "conditions": []}, "conditions: [] names nothing to interpolate"),
    ({"task": "interpolate", "conditions": "a"}, "conditions: 'a' is not a list of conditions"),
    ({"task": "interpolate", "conditions": ["a"]}, "conditions: ['a'] is not a list of conditions"),
    (
        {"task": "interpolate", "conditions": [{"text": "a", "image": "b"}]},
        "both or neither of text and image",
    ),
    ({"task": "interpolate", "conditions": [{"weight": 1.0}]}, "both or neither of text and image"),
    ({"task": "interpolate", "conditions": [{"text": "a", "weight": math.inf}]}, "has an infinite weight"),
    (
        {"task": "interpolate", "conditions": [{"text": "a", "weight": 1.0}, {"text": "b", "weight": None}]},
        "lacks some weights; give all, or none for equal ones",
    ),
    ({"height": 500, "steps": 0}, "use 448 or 512; steps: 0 is not"),
]


@pytest.mark.parametrize("row", GOOD, ids=str)
def test_a_row_that_keeps_the_rules_is_valid(row: dict[str, Any]) -> None:
    assert one(**row) is None


@pytest.mark.parametrize(("row", "message"), BAD, ids=lambda value: str(value)[:60])
def test_a_row_that_breaks_a_rule_says_which_and_what_to_do(row: dict[str, Any], message: str) -> None:
    error = one(**row)
    assert error is not None
    assert message in error


def test_without_a_task_column_a_rows_task_is_what_its_inputs_are_for() -> None:
    image, mask = {"bytes": None, "path": "a.png"}, {"bytes": b"", "path": None}
    rows = [
        {"prompt": "a cat", "image": None, "mask": None, "conditions": None},
        {"prompt": "a cat", "image": image, "mask": None, "conditions": None},
        {"prompt": "a cat", "image": image, "mask": mask, "conditions": None},
        {"prompt": None, "image": None, "mask": None, "conditions": [{"text": "a"}, {"text": "b"}]},
    ]
    resolved = resolve([pa.Table.from_pylist(rows)], config())
    assert resolved.errors == {}
    assert [TASKS[task] for task in resolved.tasks] == ["text2img", "img2img", "inpaint", "interpolate"]


def test_an_input_that_does_not_fit_is_told_and_not_left_out_where_there_is_no_task_column() -> None:
    resolved = check({"prompt": ["a cat"], "image": [5]})
    assert "image: 5 is neither a location nor an inline image" in resolved.errors[0]


def test_a_null_among_tasks_stays_a_mistake_beside_a_file_without_the_column() -> None:
    tables = [pa.table({"task": ["text2img", None], "prompt": ["a", "b"]}), pa.table({"prompt": ["c"]})]
    resolved = resolve(tables, config())
    assert set(resolved.errors) == {1}
    assert "null is not a task" in resolved.errors[1]


def test_only_the_rows_that_do_not_fit_fail() -> None:
    heights = ["512", "tall", None, "64", "-64", "9" * 30]
    resolved = check({"task": ["text2img"] * 6, "prompt": ["x"] * 6, "height": heights})
    assert set(resolved.errors) == {1, 4, 5}
    assert resolved.settings["height"][[0, 2, 3]].tolist() == [512, 512, 64]


NUMBERS = [
    pa.array([512, None], pa.int16()),
    pa.array([512, None], pa.uint64()),
    pa.array([512, None], pa.float32()),
    pa.array([np.float16(512), None], pa.float16()),
    pa.array([512, math.nan], pa.float64()),
    pa.array([decimal.Decimal("512.00"), None], pa.decimal128(9, 2)),
    pa.array(["512", None], pa.string()),
    pa.array(["512", None], pa.large_string()),
    pa.array(["512", None], pa.string_view()),
    pa.array([b"512", None], pa.binary()),
    pa.array(["512", None]).dictionary_encode(),
    pa.array([512, None]).dictionary_encode(),
    pa.RunEndEncodedArray.from_arrays(pa.array([1, 2], pa.int32()), pa.array([512, None])),
    pa.ExtensionArray.from_storage(pa.opaque(pa.int64(), "number", "test"), pa.array([512, None])),
]


@pytest.mark.parametrize("array", NUMBERS, ids=lambda array: str(array.type)[:40])
def test_a_number_may_have_any_type_that_spells_it(array: pa.Array) -> None:
    resolved = check({"task": ["text2img"] * 2, "prompt": ["x"] * 2, "height": array, "seed": array}, height=128)
    assert not resolved.errors
    assert resolved.settings["height"].tolist() == [512, 128]
    assert resolved.given.columns["seed"].to_pylist() == [512, None]


NO_NUMBERS = [
    pa.array([True, None]),
    pa.array([datetime.datetime(2024, 1, 1), None]),
    pa.array([datetime.timedelta(1), None]),
    pa.array([[512], None]),
    pa.array([{"a": 512}, None]),
    pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
    pa.array([b"\xff", None]),
]


@pytest.mark.parametrize("array", NO_NUMBERS, ids=lambda array: str(array.type)[:40])
@pytest.mark.parametrize("column", ["height", "seed", "guidance_scale", "num_images"])
def test_what_is_no_number_fails_its_row_and_a_null_beside_it_does_not(column: str, array: pa.Array) -> None:
    resolved = check({"task": ["text2img"] * 2, "prompt": ["x"] * 2, column: array})
    assert list(resolved.errors) == [0]
    assert resolved.errors[0].startswith(f"{column}: ")


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int8(), pa.string())],
)
def test_texts_and_locations_may_have_any_string_type(kind: pa.DataType) -> None:
    def text(*values: str) -> pa.Array:
        return pa.array(values).cast(kind)

    resolved = check({"task": text("img2img"), "prompt": text("é"), "image": text("a.png"), "id": text("i")})
    assert not resolved.errors
    assert resolved.given.columns["prompt"].to_pylist() == ["é"]
    assert resolved.given.columns["image"].to_pylist() == [{"bytes": None, "path": "a.png"}]


@pytest.mark.parametrize("make", [pa.list_, pa.large_list, lambda kind: pa.list_(kind, 2), pa.list_view])
def test_conditions_may_have_any_list_type_and_any_struct(make: Any) -> None:
    struct = pa.struct([("weight", pa.float32()), ("text", pa.large_string()), ("note", pa.int8())])
    values = [[{"weight": 1.0, "text": "a", "note": 1}, {"weight": 3.0, "text": "b"}], None]
    conditions = pa.array(values, make(struct))
    resolved = check({"task": ["interpolate"] * 2, "conditions": conditions})
    assert list(resolved.errors) == [1]
    given = resolved.given.columns["conditions"].to_pylist()
    assert [(c["text"], c["weight"]) for c in given[0]] == [("a", 1.0), ("b", 3.0)]
    assert given[1] is None


def test_two_files_may_have_one_request_column_in_two_types() -> None:
    first = pa.table({"task": ["text2img"], "prompt": ["x"], "seed": pa.array([2**64 - 1], pa.uint64())})
    second = pa.table({"task": ["text2img"], "prompt": ["x"], "seed": [1.5]})
    third = pa.table({"task": ["text2img"], "prompt": ["x"]})
    resolved = resolve([first, second, third], config())
    assert resolved.given.columns["seed"].to_pylist() == [2**64 - 1, None, None]
    assert list(resolved.errors) == [1]
    assert resolved.errors[1].startswith("seed: 1.5 is not")


def test_a_null_takes_the_jobs_value_and_then_the_tasks() -> None:
    rows = {"task": list(TASKS), "prompt": ["x"] * 4, "image": ["i"] * 4, "mask": ["m"] * 4}
    rows["conditions"] = [[{"text": "a"}]] * 4
    plain = check(rows)
    assert not plain.errors
    assert plain.settings["guidance_scale"].tolist() == [4.0, 7.0, 4.0, 4.0]
    assert plain.settings["steps"].tolist() == [100] * 4
    assert plain.settings["prior_steps"].tolist() == [25] * 4
    assert plain.settings["prior_guidance_scale"].tolist() == [4.0] * 4
    assert plain.settings["height"].tolist() == [512] * 4
    np.testing.assert_array_equal(plain.settings["strength"], [math.nan, 0.3, math.nan, math.nan])
    job = check({**rows, "steps": [None, 7, None, None]}, steps=50, guidance_scale=2.0, strength=0.9)
    assert job.settings["steps"].tolist() == [50, 7, 50, 50]
    assert job.settings["guidance_scale"].tolist() == [2.0] * 4
    np.testing.assert_array_equal(job.settings["strength"], [math.nan, 0.9, math.nan, math.nan])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 500}, "the job's height: 500 is not a multiple of 64; use 448 or 512"),
        ({"steps": 0}, "the job's steps: 0 is not"),
        ({"prior_steps": 1}, "the job's prior_steps: 1 is not"),
        ({"guidance_scale": math.nan}, "the job's guidance_scale: nan is not"),
        ({"strength": 0.0}, "the job's strength: 0.0 is not"),
        ({"strength": 0.1, "steps": 5}, "the job's strength: 0.1 of 5 steps leaves no step to run"),
    ],
)
def test_bad_defaults_are_told_once_before_any_row(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        check_defaults(config(**settings))


def test_good_defaults_pass() -> None:
    check_defaults(config())
    check_defaults(config(height=768, width=768, steps=50, guidance_scale=4, prior_steps=25, strength=0.3))


def test_a_message_shortens_long_values_and_hides_bytes() -> None:
    error = one(height="x" * 10_000)
    assert error is not None
    assert len(error) < 200
    assert one(seed=b"\xff" * 10_000) == one(seed=b"\xff")


def test_an_empty_table_is_fine() -> None:
    assert check({"prompt": pa.array([], pa.string())}).rows == 0
    assert set(check({"prompt": []}).given.columns) == set(REQUEST_NAMES)
