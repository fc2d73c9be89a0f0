"""From what people have to proved images: make_manifest, plan, generate, verify, and plan again with a price."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs import make_manifest
from tests.faults.conftest import ROOT, QuickJob

pytestmark = [pytest.mark.faults, pytest.mark.ray]


def make_manifests(folder: Path) -> int:
    """A manifest of each kind of source in `folder`/manifests; returns how many rows they have."""
    photos = folder / "photos"
    photos.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (64, 64), "grey").save(photos / f"{name}.png")
        Image.new("L", (64, 64), "white").save(photos / f"{name}_mask.png")
    (folder / "t.csv").write_text("id,caption,seed\n" + "".join(f"c{n},the same,{7 + n // 3}\n" for n in range(6)))
    (folder / "t.jsonl").write_text("".join(json.dumps({"id": f"j{n}", "prompt": f"p {n}"}) + "\n" for n in range(3)))
    (folder / "t.txt").write_text("a cat\na dog\n")
    (folder / "s.txt").write_text("in oil\nin ink\n")
    images = [{"id": n, "file_name": f"{n}.jpg"} for n in range(3)]
    captions = [{"id": n, "image_id": n, "caption": f"caption {n}"} for n in range(3)]
    (folder / "coco.json").write_text(json.dumps({"images": images, "annotations": captions}))
    sources: dict[str, tuple[list[str], int]] = {
        "csv": (["--csv", f"{folder}/t.csv", "--map", "caption=prompt"], 6),
        "jsonl": (["--jsonl", f"{folder}/t.jsonl"], 3),
        "text": (["--text", f"{folder}/t.txt"], 2),
        "images": (["--images", str(photos), "--masks", "beside", "--set", "prompt=a hat"], 2),
        "coco": (["--coco", f"{folder}/coco.json", "--sample", "2"], 2),
        "product": (["--product", f"{folder}/t.txt", "x", f"{folder}/s.txt", "x", "seeds", "0..1"], 8),
    }
    for name, (options, _) in sources.items():
        assert make_manifest.main([*options, "--output", f"{folder}/manifests/{name}.parquet"]) == 0
    return sum(rows for _, rows in sources.values())


def planned(job: QuickJob, output: Path, *more: str) -> dict[str, Any]:
    script = ROOT / "tests" / "faults" / "quick_plan.py"
    command = [sys.executable, str(script), *job.command(output, "--dedupe", "--json", *more)[2:]]
    ended = subprocess.run(command, cwd=job.folder, env=job.environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_sources_of_every_kind_are_planned_made_and_proved(quick_job: QuickJob, tmp_path: Path) -> None:
    rows = make_manifests(tmp_path)
    job = replace(quick_job, manifest=str(tmp_path / "manifests"), options=("--height", "64", "--width", "64"))
    job = job.with_environment(QUICK_SECONDS="0.05")
    output = tmp_path / "out"
    before = planned(job, output, "--probe")
    assert (before["rows"], before["images"], before["copies"]) == (rows, rows, 4)
    assert not list(output.rglob("*.arrow"))
    ended = job.run(output, "--dedupe")
    assert ended.returncode == 0, ended.stderr
    assert job.wrong(output) == []
    after = planned(job, output)
    assert after["done"] == {"shards": before["shards"], "sealed": before["shards"], "staged": 0, "images_left": 0}
    assert after["estimate"]["decoder_hours"] * 3600 == pytest.approx(
        0.05 * sum(b["batches"] for b in after["buckets"])
    )
    assert after["estimate"]["scaled_buckets"] == 0
    # Three ids each have the image of one seed, and their own record.
    pixels = pixels_by_id(output)
    assert pixels["c0"] == pixels["c1"] == pixels["c2"] != pixels["c3"]
    assert len(pixels) == rows


def pixels_by_id(output: Path) -> dict[str, bytes]:
    keys = {row["key"]: row["id"] for path in output.glob("*.parquet") for row in pq.read_table(path).to_pylist()}
    found = {}
    for path in output.glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar.getmembers():
                if member.name.endswith(".png"):
                    data = tar.extractfile(member)
                    assert data is not None
                    image = Image.open(io.BytesIO(data.read()))
                    name = keys[member.name.removesuffix(".png")]
                    assert f"ID: {name}" in image.info["parameters"]
                    found[name] = image.tobytes()
    return found
