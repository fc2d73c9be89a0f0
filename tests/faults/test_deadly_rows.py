"""Rows that kill, hang or eat, processes and nodes that vanish: the rest comes out with the same bytes as ever.

The real job with the real pipelines; `killers/sitecustomize.py` makes some rows deadly.
"""

from __future__ import annotations

import os
import struct
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.ray.conftest import SMALL, Job, picture, write_manifest
from tests.ray.test_pipeline import index_rows, shard_bytes

pytestmark = [pytest.mark.faults, pytest.mark.models]

KILLERS = Path(__file__).resolve().parent / "killers"

#: Seconds; many times what a call of these sizes takes on a busy machine.
LIMIT = 12


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb() -> dict[str, Any]:
    """A PNG of some hundred kilobytes that unpacks to 60,000 x 60,000 pixels."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 60_000 // 8)
    pixels = b"".join(packer.compress(row * 1000) for _ in range(60)) + packer.flush()
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")
    return {"bytes": b"\x89PNG\r\n\x1a\n" + chunks, "path": "bomb.png"}


def crashing() -> dict[str, Any]:
    """A good PNG that the killers know by what it has after its end."""
    return {"bytes": picture("green")["bytes"] + b"crashes the codec", "path": "crash.png"}


#: id -> what the row is, how it must end, words that its reason must hold. Good rows sit between the bad ones.
ROWS: dict[str, tuple[dict[str, Any], str, str]] = {
    "good 1": ({"prompt": "a cat"}, "success", ""),
    "exits": ({"prompt": "quits at once"}, "failed_to_generate", "killed its worker"),
    "good 2": ({"prompt": "a dog"}, "success", ""),
    "hangs": ({"prompt": "never ends"}, "failed_to_embed", f"did not finish within {LIMIT} s"),
    "good 3": ({"prompt": "a fox"}, "success", ""),
    "eats": ({"prompt": "is hungry"}, "failed_to_generate", "MemoryError"),
    "raises": ({"prompt": "complains"}, "failed_to_generate", "ValueError: this prompt is not to my taste"),
    "good 4": ({"prompt": "a hen"}, "success", ""),
    "good 5": ({"prompt": "a", "image": picture("red"), "strength": 1.0}, "success", ""),
    "half": (
        {"prompt": "a", "image": {"bytes": picture("red")["bytes"][:90], "path": "half.png"}, "strength": 1.0},
        "failed_to_load",
        "truncated",
    ),
    "crashes": ({"prompt": "a", "image": crashing(), "strength": 1.0}, "failed_to_load", "killed its worker"),
    "good 6": ({"prompt": "b", "image": picture("blue"), "strength": 1.0}, "success", ""),
    "bomb": (
        {"prompt": "a", "image": bomb(), "strength": 1.0},
        "failed_to_load",
        "over the limit of 178,956,970",
    ),
    "good 7": ({"prompt": "c", "image": picture("white"), "strength": 1.0}, "success", ""),
}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, clean_environment: dict[str, str]) -> Job:
    """The rows above, which are deadly only where the killers are."""
    rows = []
    for seed, (name, (columns, _, _)) in enumerate(ROWS.items()):
        task = "img2img" if "image" in columns else "text2img"
        rows.append({**SMALL, "id": name, "task": task, "seed": seed, **columns})
    folder = tmp_path_factory.mktemp("deadly")
    return Job(write_manifest(folder / "requests.parquet", rows), folder, clean_environment)


@pytest.fixture(scope="module")
def undisturbed(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the job makes where no row is deadly and nothing is killed."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    ended = job.run(output)
    assert ended.returncode == 3, ended.stderr
    return output


def test_exactly_the_deadly_rows_fail_each_with_its_reason(job: Job, undisturbed: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    path = os.pathsep.join(filter(None, [str(KILLERS), job.environment.get("PYTHONPATH")]))
    deadly = replace(job, environment={**job.environment, "PYTHONPATH": path})
    ended: subprocess.CompletedProcess[str] = deadly.run(output, "--device-timeout", str(LIMIT))
    assert ended.returncode == 3, ended.stderr
    rows = {name: row for (name, _), row in index_rows(output).items()}
    assert {name: row["status"] for name, row in rows.items()} == {
        name: status for name, (_, status, _) in ROWS.items()
    }
    for name, (_, _, words) in ROWS.items():
        assert words in (rows[name]["error_message"] or ""), name
    # Beside a row that kills, a good one has the very bytes it would have had.
    before = {name: row["sha256"] for (name, _), row in index_rows(undisturbed).items()}
    for name, (_, status, _) in ROWS.items():
        if status == "success":
            assert rows[name]["sha256"] == before[name], name
    assert shard_bytes(output).keys() == shard_bytes(undisturbed).keys()
