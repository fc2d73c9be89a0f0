"""What stands where an image is named: images that are texts become bytes, everything else stays a location."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from urllib.parse import quote_from_bytes

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.make_manifest import main as make_manifest
from manifests.config import RunConfig
from manifests.planning.image_locations import decoded, resolve_locations, unwrap_texts
from manifests.planning.plan import batches_of, plan
from workers.stages.inputs import load_inputs

RNG = np.random.default_rng(3)
SHADES = RNG.integers(0, 256, (24, 24, 3), dtype=np.uint8)


def image_file(kind: str = "PNG") -> bytes:
    sink = io.BytesIO()
    Image.fromarray(SHADES).save(sink, kind)
    return sink.getvalue()


PNG = image_file()
TEXTS = {
    "data URI": f"data:image/png;base64,{base64.b64encode(PNG).decode()}",
    "data URI with a charset": f"data:image/png;charset=utf-8;base64,{base64.b64encode(PNG).decode()}",
    "data URI of the URL alphabet": f"data:;base64,{base64.urlsafe_b64encode(PNG).decode().rstrip('=')}",
    "data URI without base64": f"data:image/png,{quote_from_bytes(PNG)}",
    "base64": base64.b64encode(PNG).decode(),
    "base64 in lines": base64.encodebytes(PNG).decode(),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_an_image_as_text_is_the_image(text: str) -> None:
    data, path = unwrap_texts(pa.nulls(2, pa.binary()), pa.array([text, "a.png"]))
    assert data.to_pylist() == [PNG, None]
    assert path.to_pylist() == [None, "a.png"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"])
def test_bare_base64_of_every_common_format_is_known(kind: str) -> None:
    content = image_file(kind)
    data, _ = unwrap_texts(pa.nulls(1, pa.binary()), pa.array([base64.b64encode(content).decode()]))
    assert data.to_pylist() == [content]


@pytest.mark.parametrize(
    "location",
    [
        "/9j/" + "deep/" * 40 + "cat.jpg",
        "iVBORw0KGgo" + "A" * 100 + "/x",
        "Qk" + "b" * 300 + ".png",
        "data.png",
        "data:image/png;base64,@@@",
        "data:broken",
        "s3://bucket/iVBORw0KGgo",
        "",
    ],
)
def test_what_only_looks_like_an_image_stays_a_location(location: str) -> None:
    data, path = unwrap_texts(pa.nulls(1, pa.binary()), pa.array([location]))
    assert (data.to_pylist(), path.to_pylist()) == ([None], [location])


def test_bytes_keep_the_name_beside_them() -> None:
    data, path = unwrap_texts(pa.array([b"x", None]), pa.array([TEXTS["data URI"], None], pa.string()))
    assert (data.to_pylist(), path.to_pylist()) == ([b"x", None], [TEXTS["data URI"], None])
    assert decoded("data:image/png") is None


def test_only_relative_paths_get_a_folder() -> None:
    paths = ["a.png", "/a.png", "~/a.png", "s3://b/a.png", "file:///a.png", "data:broken", None]
    found = resolve_locations(pa.array(paths), "/m").to_pylist()
    assert found == ["/m/a.png", *paths[1:]]


LONG = "https://127.0.0.1:1/a?sign=" + "x" * 9000

ROWS = [
    {"id": "uri", "task": "img2img", "prompt": "p", "image": TEXTS["data URI"], "strength": 1.0},
    {"id": "bare", "task": "img2img", "prompt": "p", "image": TEXTS["base64"], "strength": 1.0},
    {"id": "broken", "task": "img2img", "prompt": "p", "image": "data:image/png;base64," + "@" * 9000, "strength": 1.0},
    {
        "id": "long",
        "task": "img2img",
        "prompt": "p",
        "image": "https://127.0.0.1:1/a?sign=" + "x" * 9000,
        "strength": 1.0,
    },
]


def test_a_run_takes_images_as_text_and_shows_no_location_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.stages.fetching.FOREIGN_PATIENCE_S", 0.0)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "m.parquet")
    config = RunConfig(manifest=(str(tmp_path / "m.parquet"),), output=str(tmp_path / "out"), height=64, width=64)
    (batch,) = batches_of(config, plan(config).windows)
    assert batch.values("image_path", [0, 1]) == [None, None]
    done = load_inputs(batch, 32)
    assert done.pending == [0, 1]
    assert done.values("image_pixels", [0]) == done.values("image_pixels", [1])
    told = [str(message) for message in done.samples.column("error_message").to_pylist()[2:]]
    assert all(len(message) < 600 for message in told)
    assert "is a data: URI that holds no base64" in told[0]
    assert "characters)) cannot be read" in told[1]


def test_a_manifest_that_is_made_has_the_images_inline(tmp_path: Path) -> None:
    rows = [*({key: row[key] for key in ("id", "prompt", "image")} for row in ROWS[:2])]
    rows.append({"id": "i", "conditions": [{"image": TEXTS["data URI"], "weight": 1}, {"text": "b", "weight": 1}]})  # type: ignore[dict-item]
    (tmp_path / "j.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert make_manifest(["--jsonl", str(tmp_path / "j.jsonl"), "--output", str(tmp_path / "m.parquet")]) == 0
    made = pq.read_table(tmp_path / "m.parquet").to_pylist()
    assert [row["image"] for row in made[:2]] == [{"bytes": PNG, "path": None}] * 2
    assert made[2]["conditions"][0]["image"] == {"bytes": PNG, "path": None}
