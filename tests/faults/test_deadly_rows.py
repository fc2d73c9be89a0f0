"""Rows that kill, hang or eat, processes and nodes that vanish: the rest comes out with the same bytes as ever.

The real job with the real pipelines; `killers/sitecustomize.py` makes some rows deadly.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import pytest
from ray.cluster_utils import Cluster

from manifests.commit import staged_parts
from tests.nodes import nodes_environment
from tests.ray.conftest import SMALL, Job, images_of, picture, write_manifest
from tests.ray.test_pipeline import index_rows, shard_bytes
from workers.checkpoints.locations import DECODER, own_revision

pytestmark = [pytest.mark.faults, pytest.mark.models]

Found = TypeVar("Found")

KILLERS = Path(__file__).resolve().parent / "killers"

#: A run that takes longer hangs.
RUN_LIMIT_S = 480

#: Seconds; many times what a call of these sizes takes on a busy machine.
LIMIT = 10


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
    **{f"more {i}": ({"prompt": f"picture {i}"}, "success", "") for i in range(12)},
}


def made(output: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Pixels of every image by its request."""
    ids = {row["key"]: name for (name, _), row in index_rows(output).items()}
    return {ids[key]: image for key, image in images_of(output).items()}


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
def undisturbed(job: Job, tmp_path_factory: pytest.TempPathFactory, shared_environment: dict[str, str]) -> Path:
    """What the job makes where no row is deadly and nothing is killed."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    ended = replace(job, environment=shared_environment).run(output)
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
    # Beside a row that kills, a good one has the bytes it would have had. Beside one that an earlier stage lost, its
    # call is smaller than planned and may round otherwise: the noise contract allows one level.
    before = {name: row["sha256"] for (name, _), row in index_rows(undisturbed).items()}
    good = [name for name, (_, status, _) in ROWS.items() if status == "success"]
    assert {name for name in good if rows[name]["sha256"] != before[name]} <= {"good 2", "good 6"}
    images, images_before = made(output), made(undisturbed)
    for name in good:
        assert np.abs(images[name].astype(int) - images_before[name].astype(int)).max() <= 1, name
    assert shard_bytes(output).keys() == shard_bytes(undisturbed).keys()
    # Every death was told, those of hung calls apart, and counted.
    report = json.loads((output / "_run" / "run.json").read_text())
    assert ended.stderr.count(" was lost on the CPU of ") == sum(report["lost_workers"].values())
    assert {"hung", "killed or crashed"} <= report["lost_workers"].keys()
    assert report["batches_again"] >= 4


@pytest.fixture
def three_nodes(clean_environment: dict[str, str]) -> Iterator[Cluster]:
    """A Ray cluster of three small nodes on this machine."""
    with nodes_environment(clean_environment):
        size = {"num_cpus": 2, "object_store_memory": 100 << 20}
        # The head has room for one actor: of two decoders, one is somewhere else.
        cluster = Cluster(initialize_head=True, head_node_args={**size, "num_cpus": 1, "include_dashboard": False})
        for _ in range(2):
            cluster.add_node(**size)
        try:
            yield cluster
        finally:
            cluster.shutdown()


def busy_actors(cluster: Cluster, stage: str) -> list[tuple[psutil.Process, Any]]:
    """Processes of a device pool that have a batch, each with its node."""
    found = []
    for node in cluster.list_all_nodes():
        (raylet,) = node.all_processes["raylet"]
        for process in psutil.Process(raylet.process.pid).children():
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if f"MapBatches({stage})).submit" in " ".join(process.cmdline()):
                    found.append((process, node))
    return found


def wait_until(happened: Callable[[], Found], process: subprocess.Popen[str]) -> Found:
    deadline = time.monotonic() + RUN_LIMIT_S
    while not (found := happened()):
        assert process.poll() is None, "the run ended first"
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)
    return found


def test_killed_actors_and_a_lost_node_change_no_byte(
    job: Job, undisturbed: Path, three_nodes: Cluster, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    distributed = replace(job, environment={**job.environment, "RAY_ADDRESS": three_nodes.address})
    process = distributed.start(output, "--decoder-actors", "2")

    def done() -> int:
        """Batches that are staged or sealed by now, at least."""
        staged = sum(len(parts) for parts in staged_parts(str(output)).values()) if output.exists() else 0
        return staged + len(list(output.glob("*_stats.json")))

    def decoders_elsewhere() -> list[Any]:
        return [node for _, node in busy_actors(three_nodes, "Decoder") if node is not three_nodes.head_node]

    for stage in ("Prior", "Decoder"):
        killed, _ = wait_until(lambda stage=stage: busy_actors(three_nodes, stage), process)[0]
        killed.send_signal(signal.SIGKILL)
        # Not the first part, which may be of rows that no device has to do anything about.
        before = max(done(), 1)
        wait_until(lambda before=before: done() > before, process)
    three_nodes.remove_node(wait_until(decoders_elsewhere, process)[0], allow_graceful=False)
    _, said = process.communicate(timeout=RUN_LIMIT_S)
    assert process.returncode == 3, said
    assert shard_bytes(output) == shard_bytes(undisturbed)
    # The node's workers are told though no process took their places there, and whatever else went with them. The
    # batch that was seen in one of them may have been done just before.
    assert "(its node is gone)" in said, said
    lost = json.loads((output / "_run" / "run.json").read_text())["lost_workers"]
    assert lost["node lost"] == said.count("(its node is gone)") >= 1
    assert said.count(" was lost on the CPU of ") == sum(lost.values())


def test_damaged_weights_end_the_run_with_the_cause_on_the_last_line(
    job: Job, shared_environment: dict[str, str], undisturbed: Path, tmp_path: Path
) -> None:
    (demo,) = Path(job.environment["KANDINSKY_BATCH_CACHE"]).glob(own_revision("random"))
    shutil.copytree(demo, tmp_path / "weights")
    (weights,) = (tmp_path / "weights" / DECODER / "unet").glob("*.safetensors")
    # Of the right size, so that the driver's look at it finds nothing.
    header = b'{"x": {"dtype": "F99", "shape": [], "data_offsets": [0, 0]}}'
    weights.write_bytes(struct.pack("<Q", len(header)) + header)
    ended = replace(job, environment=shared_environment).run(
        tmp_path / "out", "--checkpoint", str(tmp_path / "weights")
    )
    last = ended.stderr.splitlines()[-1]
    assert ended.returncode == 1
    assert "batches are missing: the decoder pool cannot start on the CPU of" in last, ended.stderr
    assert "OSError: Unable to load weights" in last
    assert "the same command goes on from here" in last
    # The engine's tracebacks are in the log, not between the lines of the run.
    assert "Traceback" not in ended.stderr + ended.stdout
    assert (tmp_path / "out" / "_run" / "error.log").read_text()
    assert not (tmp_path / "out" / "_SUCCESS").exists()
