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
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from ray.cluster_utils import Cluster

from jobs.run import run_folder
from jobs.scoring.job import score
from manifests.scores import parse
from tests.faults.holding import ALL, Holding
from tests.nodes import lives, ray_nodes
from tests.proof import wrong_with
from tests.ray.conftest import SMALL, Job, images_of, write_manifest
from tests.ray.mixed_rows import picture
from tests.ray.test_pipeline import index_rows, shard_bytes
from tests.ray.test_scores import SCORES, assert_near
from workers.checkpoints.locations import DECODER, own_revision

pytestmark = [pytest.mark.faults, pytest.mark.models]

Found = TypeVar("Found")

KILLERS = Path(__file__).resolve().parent / "killers"

#: A run that takes longer hangs.
RUN_LIMIT_S = 900

#: Seconds; many times what a call of these sizes takes on a busy machine. A batch that takes longer is made again.
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
    "unjudged": ({"prompt": "it cannot be judged"}, "success", ""),
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
    scoring = ("--scores", "all", "--keep-clip")
    ended: subprocess.CompletedProcess[str] = deadly.run(output, "--device-timeout", str(LIMIT), *scoring)
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
    # What its scorer does not survive has its image and no score of CLIP's; the others have those that they would have.
    scored = shutil.copytree(undisturbed, tmp_path / "scored")
    score(run_folder.settings(str(scored)), parse("all", False), True, "cpu", lambda words: None)
    found, meant = (
        {place: row for place, row in index_rows(each).items() if place[0] in good} for each in (output, scored)
    )
    unjudged = found.pop(("unjudged", 0))
    assert [unjudged[name] for name in SCORES] == [None] * len(SCORES)
    assert unjudged["image_phash"] == meant.pop(("unjudged", 0))["image_phash"]
    assert_near(found, meant)
    assert wrong_with(output, job.manifest) == []


@pytest.fixture
def holding(tmp_path: Path) -> Holding:
    """Of each stage one call may end; then they stand still."""
    folder = tmp_path / "holding"
    folder.mkdir()
    holding = Holding(folder)
    for stage in ("Prior", "Decoder"):
        holding.allow(stage, 1)
    return holding


@pytest.fixture
def three_nodes(clean_environment: dict[str, str], holding: Holding) -> Iterator[Cluster]:
    """A Ray cluster of three small nodes on this machine, with device calls that stand still."""
    path = os.pathsep.join(filter(None, [str(KILLERS), clean_environment.get("PYTHONPATH")]))
    environment = {**clean_environment, "PYTHONPATH": path, "KILLERS_HOLD": str(holding.folder)}
    size = {"num_cpus": 2, "object_store_memory": 100 << 20}
    # The head has room for one actor: of two decoders, one is somewhere else.
    with ray_nodes(environment, {**size, "num_cpus": 1}, size, size) as cluster:
        yield cluster


def wait_until(happened: Callable[[], Found], process: subprocess.Popen[str]) -> Found:
    deadline = time.monotonic() + RUN_LIMIT_S
    while not (found := happened()):
        assert process.poll() is None, f"the run ended first: {process.communicate()[1]}"
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)
    return found


def kill(pid: int, process: subprocess.Popen[str]) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not lives(pid), process)


def test_killed_actors_and_a_lost_node_change_no_byte(
    job: Job, undisturbed: Path, three_nodes: Cluster, holding: Holding, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    distributed = replace(job, environment={**job.environment, "RAY_ADDRESS": three_nodes.address})
    process = distributed.start(output, "--decoder-actors", "2")
    try:
        kill(wait_until(lambda: [*holding.held("Prior")], process)[0], process)
        # What the killed prior was at comes to a decoder by another one.
        holding.allow("Prior", ALL)
        holding.allow("Decoder", 2)
        kill(wait_until(lambda: [*holding.held("Decoder")], process)[0], process)
        holding.allow("Decoder", 4)

        def elsewhere() -> list[tuple[int, str]]:
            found = holding.held("Decoder")
            return [(pid, node) for pid, node in found.items() if node != three_nodes.head_node.node_id]

        pid, node_id = wait_until(elsewhere, process)[0]
        (lost,) = (node for node in three_nodes.worker_nodes if node.node_id == node_id)
        three_nodes.remove_node(lost, allow_graceful=False)
        # Not before it is dead: it might still say that it is done with its batch.
        wait_until(lambda: not lives(pid), process)
        holding.allow("Decoder", ALL)
        _, said = process.communicate(timeout=RUN_LIMIT_S)
    finally:
        process.kill()
    assert process.returncode == 3, said
    assert shard_bytes(output) == shard_bytes(undisturbed)
    # The node's workers are told though no process took their places there, with the batch that one of them was at.
    assert "(its node is gone); its batch" in said, said
    lost_workers = json.loads((output / "_run" / "run.json").read_text())["lost_workers"]
    assert lost_workers["node lost"] == said.count("(its node is gone)")
    # The prior, at least: the decoder's place may have been on the node that was lost before it started again.
    assert lost_workers["killed or crashed"] >= 1
    assert said.count(" was lost on the CPU of ") == sum(lost_workers.values())


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
