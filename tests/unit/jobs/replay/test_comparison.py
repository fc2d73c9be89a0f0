"""What is said of two images, and of what may be why they differ: only what really does."""

from __future__ import annotations

import io
import platform
import socket
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.replay.comparison import compare, reasons
from manifests.config import RunConfig

PIXELS = np.random.default_rng(0).integers(1, 255, (8, 8, 3), np.uint8)
CONFIG = RunConfig(manifest=("m",), output="o", batch_size=4)


def png(pixels: Any) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def test_equal_pixels_are_identical_whatever_else_is_in_the_file() -> None:
    sink = io.BytesIO()
    Image.fromarray(PIXELS).save(sink, "PNG", compress_level=0)
    assert compare(png(PIXELS), sink.getvalue()).in_words.startswith("identical")


def test_one_level_is_told_apart_from_more() -> None:
    near = PIXELS.copy()
    near[0, 0] += 1
    assert compare(png(PIXELS), png(near)).in_words == (
        "within one level: 3 of 192 values differ, none by more than 1 of 255"
    )
    # Both directions, and no wrapping around at the ends of a byte.
    far = PIXELS.copy()
    far[0, 0, 0], far[0, 0, 1] = 0, 255
    worst = int(max(PIXELS[0, 0, 0], 255 - int(PIXELS[0, 0, 1])))
    assert (
        compare(png(PIXELS), png(far)).in_words == f"not identical: 2 of 192 values differ, the worst by {worst} of 255"
    )


def test_another_size_is_not_identical() -> None:
    assert compare(png(PIXELS), png(PIXELS[:4])).in_words.startswith("not identical")


def report(**other: Any) -> dict[str, Any]:
    versions = {"python": platform.python_version(), "numpy": version("numpy"), "mindspore": version("mindspore")}
    here = {"stage": "decoder", "host": socket.gethostname(), "chip": None}
    return {"device": "cpu", "devices": [here], "versions": versions, **other}


@pytest.mark.parametrize(
    ("changes", "rows", "why"),
    [
        ({}, (4, 4), "device, versions and batch are those of the run's last start"),
        ({}, (4, 1), "another batch: the run made 4 images in one call, and now it is 1"),
        ({"device": "ascend"}, (1, 1), "another device: it was made on ascend in float16, now on cpu in float32"),
        ({"devices": [{"host": "n7"}, {"host": "n8"}]}, (1, 1), "another machine: it was made on n7 or n8, now on "),
        ({"versions": {"numpy": "1.0"}}, (1, 1), f"another version of numpy: it was 1.0, now it is {version('numpy')}"),
        ({"versions": {"no-such": "1.0"}}, (1, 1), "of no-such: it was 1.0, now it is not installed"),
        ({"versions": {}}, (1, 1), "the run has left no record"),
    ],
)
def test_only_what_really_differs_is_named(changes: dict[str, Any], rows: tuple[int, int], why: str) -> None:
    (found,) = reasons(report(**changes), CONFIG, "cpu", rows)
    assert why in found
