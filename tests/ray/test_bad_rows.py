"""A manifest with bad rows among good ones: each is in the index with its reason, and every good row has its image."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.ray.conftest import SMALL, Job, picture

pytestmark = [pytest.mark.ray, pytest.mark.models]

#: id -> the row's own columns, its status, and words that its reason must hold.
BAD: dict[str, tuple[dict[str, Any], str, tuple[str, ...]]] = {
    "no task": ({"task": None, "prompt": "x"}, "failed_to_validate", ("task", "text2img")),
    "unknown task": ({"task": "txt2img", "prompt": "x"}, "failed_to_validate", ("task", "txt2img")),
    "no prompt": ({"task": "text2img"}, "failed_to_validate", ("prompt",)),
    "odd size": ({"task": "text2img", "prompt": "x", "height": 100}, "failed_to_validate", ("height", "100", "64")),
    "one prior step": ({"task": "text2img", "prompt": "x", "prior_steps": 1}, "failed_to_validate", ("prior_steps",)),
    "no strength": (
        {"task": "img2img", "prompt": "x", "image": picture("red"), "strength": 0.0},
        "failed_to_validate",
        ("strength",),
    ),
    "no mask": ({"task": "inpaint", "prompt": "x", "image": picture("red")}, "failed_to_validate", ("mask",)),
    "no conditions": ({"task": "interpolate"}, "failed_to_validate", ("conditions",)),
    "missing file": (
        {"task": "img2img", "prompt": "x", "image": {"bytes": None, "path": "gone.png"}, "strength": 1.0},
        "failed_to_load",
        ("image", "gone.png", "does not exist"),
    ),
    "not an image": (
        {"task": "img2img", "prompt": "x", "image": {"bytes": b"hello", "path": None}, "strength": 1.0},
        "failed_to_load",
        ("image", "inline bytes", "not an image"),
    ),
    "truncated image": (
        {
            "task": "inpaint",
            "prompt": "x",
            "image": {"bytes": picture("red")["bytes"][:100], "path": "half.png"},
            "mask": picture("white", "L"),
        },
        "failed_to_load",
        ("image", "half.png", "truncated"),
    ),
}

GOOD: dict[str, dict[str, Any]] = {
    "good text": {"task": "text2img", "prompt": "a cat"},
    "good image": {"task": "img2img", "prompt": "a cat", "image": picture("green"), "strength": 1.0},
    "good mask": {"task": "inpaint", "prompt": "a cat", "image": picture("green"), "mask": picture("white", "L")},
}


def test_each_bad_row_has_its_reason_and_each_good_row_its_image(
    make_job: Callable[[Sequence[dict[str, Any]]], Job], tmp_path: Path
) -> None:
    bad = [{**SMALL, "id": name, **columns} for name, (columns, _, _) in BAD.items()]
    good = [{**SMALL, "id": name, **columns} for name, columns in GOOD.items()]
    twice = {**SMALL, "id": "good text", "task": "text2img", "prompt": "the id is taken"}
    output = tmp_path / "out"
    # Good rows first, among and last, so that bad ones sit beside them in batches.
    ended = make_job([good[0], *bad[:6], good[1], *bad[6:], good[2], twice]).run(output)
    assert ended.returncode == 3, ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout

    rows = [row for index in output.glob("*.parquet") for row in pq.read_table(index).to_pylist()]
    assert len(rows) == len(BAD) + len(GOOD) + 1
    failed = {row["id"]: row for row in rows if row["status"] != "success" and row["id"] != "good text"}
    assert failed.keys() == BAD.keys()
    for name, (_, status, words) in BAD.items():
        assert failed[name]["status"] == status
        assert all(word in failed[name]["error_message"] for word in words), failed[name]["error_message"]
    (second,) = (row for row in rows if row["id"] == "good text" and row["status"] != "success")
    assert "already used" in second["error_message"]

    members = set()
    for path in output.glob("*.tar"):
        with tarfile.open(path) as tar:
            members |= set(tar.getnames())
    written = {row["id"]: row["key"] for row in rows if row["status"] == "success"}
    assert written.keys() == GOOD.keys()
    assert {name for name in members if name.endswith(".png")} == {f"{key}.png" for key in written.values()}
