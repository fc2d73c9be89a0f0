"""Pools on a cluster of several nodes that offer NPUs: pinning, growth, run-ahead, lost nodes, shared cards.

There is no card: actors take theirs as far as Ray, environment and folders go, and sleep instead of computing
(card_generate.py). Everything else of the job is the real thing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from jobs.engine.elastic import AHEAD_PER_DECODER
from tests.cluster.events import told
from tests.nodes import add_node, lives, ray_nodes
from tests.proof import wrong_with
from tests.ray.mixed_rows import picture
from tests.unit.finished_run import write_manifest

pytestmark = [pytest.mark.ray, pytest.mark.faults]

ROOT = Path(__file__).resolve().parents[2]
ROWS = [{"id": f"r{i:02d}", "task": "text2img", "prompt": f"p {i}", "seed": i, "num_images": 1} for i in range(80)]

SIZES = ("--batch-size", "1", "--shard-size", "8")

#: A run that takes longer hangs.
RUN_LIMIT_S = 900

NODE: dict[str, Any] = {"num_cpus": 1, "resources": {"NPU": 2}, "object_store_memory": 100 << 20}

#: A request of each task.
KINDS: dict[str, dict[str, Any]] = {
    "text": {"task": "text2img", "prompt": "a cat"},
    "image": {"task": "img2img", "prompt": "oil", "image": picture("red"), "strength": 1.0},
    "mask": {"task": "inpaint", "prompt": "a hat", "image": picture("blue"), "mask": picture("white", "L")},
    "mix": {"task": "interpolate", "conditions": [{"text": "a", "weight": 0.5}, {"text": "b", "weight": 0.5}]},
}


@pytest.fixture(scope="module")
def nodes_have(clean_environment: dict[str, str]) -> dict[str, str]:
    """The environment of the cluster's nodes."""
    # A lost node is missed after two seconds; a real cluster takes fifteen.
    health = {"initial_delay_ms": "2000", "period_ms": "500", "failure_threshold": "4"}
    return {**clean_environment, **{f"RAY_health_check_{name}": value for name, value in health.items()}}


@pytest.fixture(scope="module")
def cluster(nodes_have: dict[str, str]) -> Iterator[Cluster]:
    """Three nodes on this machine, each with two NPUs in Ray's books; the driver's own node has none."""
    with ray_nodes(nodes_have, {"num_cpus": 2, "object_store_memory": 200 << 20}, NODE, NODE, NODE) as cluster:
        yield cluster


class Run:
    """One job on that cluster, and what its actors have told so far."""

    def __init__(self, cluster: Cluster, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.output = folder, folder / "out"
        self.log = folder / "log"
        self.log.mkdir()
        self.environment = {
            **environment,
            "RAY_ADDRESS": cluster.address,
            "PYTHONPATH": str(ROOT),
            "KANDINSKY_BATCH_CACHE": str(folder / "cache"),
            "CARDS_LOG": str(self.log),
            "CARDS_PRIOR_SECONDS": "0.1",
            "CARDS_DECODER_SECONDS": "0.1",
        }
        self.manifest = write_manifest(folder / "m.parquet", ROWS)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(
        self, *options: str, script: str = "card_generate.py", sizes: Sequence[str] = SIZES
    ) -> subprocess.Popen[bytes]:
        """Start one of the scripts beside this file."""
        command = [
            *(sys.executable, str(ROOT / "tests" / "cluster" / script), "--manifest", self.manifest),
            *("--output", str(self.output), "--device", "ascend", "--height", "64", "--width", "64", *sizes, *options),
        ]
        with (self.folder / "said").open("wb") as said:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=said, stderr=subprocess.STDOUT
            )
        self.processes.append(process)
        return process

    def end(self) -> None:
        """Leave nothing that the next test would meet."""
        for process in self.processes:
            process.kill()
            process.wait()

    @property
    def said(self) -> str:
        """What a person has been told so far."""
        return (self.folder / "said").read_text(errors="replace")

    def events(self, event: str, stage: str | None = None) -> list[dict[str, Any]]:
        """All of them so far, in order."""
        return [each for each in told(self.log) if each["event"] == event and stage in (None, each["stage"])]

    def living(self, but: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Starts of actors that are there now, except these."""
        known = {event["pid"] for event in but}
        return [event for event in self.events("starts") if event["pid"] not in known and lives(event["pid"])]

    def allow(self, batches: int) -> None:
        """So many may be decoded for now, in all; a few more are, where several decoders are at it."""
        (self.log / "allowed.new").write_text(str(batches))
        (self.log / "allowed.new").replace(self.log / "allowed")


def wait_for(happened: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    """Until something has happened; a job that has ended before is a failure."""
    deadline = time.monotonic() + RUN_LIMIT_S
    while not happened():
        assert process.poll() is None, "the job has ended before"
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)


def card(event: dict[str, Any]) -> tuple[str, str]:
    return event["node"], event["npu"]


def most_ahead(run: Run) -> int:
    """The most batches that the prior has been ahead of the decoder."""
    steps = [1 if event["stage"] == "prior" else -1 for event in run.events("ends")]
    return max(accumulate(steps))


@pytest.fixture
def run(cluster: Cluster, tmp_path: Path, clean_environment: dict[str, str]) -> Iterator[Run]:
    run = Run(cluster, tmp_path, clean_environment)
    yield run
    run.end()


def test_what_cannot_fit_is_refused_before_anything_starts(run: Run) -> None:
    process = run.start("--prior-actors", "3", "--decoder-actors", "4")
    assert process.wait(RUN_LIMIT_S) == 2
    assert "the prior pool needs 3 and the decoder pool at least 4, together 7 NPUs, but the cluster has 6" in run.said
    assert not run.events("starts")


def test_shared_cards_hold_one_decoder_and_at_most_one_prior_each(run: Run) -> None:
    rows = ROWS[:24]
    run.manifest = write_manifest(run.folder / "few.parquet", rows)
    # Nor are all batches made by those that are there first.
    run.allow(1)
    process = run.start("--share-devices", "--device-memory", "64", "--prior-actors", "3")
    wait_for(lambda: len(run.events("starts")) >= 9, process)
    run.allow(len(rows))
    assert process.wait(RUN_LIMIT_S) == 0, run.said
    assert wrong_with(run.output, run.manifest) == []
    priors, decoders = ([card(event) for event in run.events("starts", stage)] for stage in ("prior", "decoder"))
    assert len(set(decoders)) == len(decoders) == 6
    assert len(set(priors)) == len(priors) == 3
    memory = {event["stage"]: event["memory_gb"] for event in run.events("starts")}
    assert memory == {"prior": 19.2, "decoder": 38.4}


@pytest.mark.nightly
def test_the_real_models_make_all_tasks_on_three_nodes_and_lose_one(
    run: Run, cluster: Cluster, clean_environment: dict[str, str], nodes_have: dict[str, str]
) -> None:
    rows = [
        {"id": f"{kind}{i}", "seed": i, "num_images": 1, "steps": 4, "prior_steps": 2, **columns}
        for i in range(6)
        for kind, columns in KINDS.items()
    ]
    run.manifest = write_manifest(run.folder / "m.parquet", rows)
    run.environment["KANDINSKY_BATCH_CACHE"] = clean_environment["KANDINSKY_BATCH_CACHE"]
    sizes = ("--batch-size", "2", "--shard-size", "6")
    process = run.start("--checkpoint", "random", "--decoder-actors", "1:3", script="seam_generate.py", sizes=sizes)
    # Three parts are a shard, and gone as soon as that is there.
    wait_for(lambda: len(list(run.output.glob("_run/parts/*/*.arrow"))) >= 2 or [*run.output.glob("*.tar")], process)
    lost = next(node for node in cluster.worker_nodes if node is not cluster.head_node)
    cluster.remove_node(lost, allow_graceful=False)
    try:
        process.wait(RUN_LIMIT_S)
    finally:
        add_node(cluster, nodes_have, NODE)
    assert process.returncode == 0, run.said
    assert "24 images written, 0 failed" in run.said
    assert wrong_with(run.output, run.manifest) == []
    devices = json.loads((run.output / "_run" / "run.json").read_text())["devices"]
    assert {device["stage"] for device in devices} == {"prior", "decoder"}


def test_cards_are_pinned_kept_over_kills_grown_into_and_given_up_with_their_node(run: Run, cluster: Cluster) -> None:
    # The decoders stand still until what is waited for has happened, however long that takes.
    run.allow(1)
    process = run.start()
    wait_for(lambda: len(run.events("starts")) >= 6 and run.events("ends", "decoder"), process)
    starts = run.events("starts")
    assert len({card(event) for event in starts}) == len(starts) == 6, "one card each"
    assert all(event["visible"] == event["npu"] for event in starts)
    assert len({(event["node"], event["cache"]) for event in starts}) == 6, "one folder of compiled operators each"
    assert [event["stage"] for event in starts].count("prior") == 1

    victim = run.events("starts", "decoder")[0]
    os.kill(victim["pid"], signal.SIGKILL)
    wait_for(lambda: len(run.events("starts")) >= 7, process)
    assert card(run.events("starts")[6]) == card(victim), "the only card that is free is its own"
    wait_for(lambda: most_ahead(run) >= AHEAD_PER_DECODER * 4, process)
    time.sleep(3)
    assert most_ahead(run) <= AHEAD_PER_DECODER * 5, "the prior could have ended long ago"

    first = run.events("starts")
    (prior,) = run.events("starts", "prior")
    lost = next(node for node in cluster.worker_nodes if node.node_id == prior["node"])
    cluster.remove_node(lost, allow_graceful=False)
    wait_for(lambda: "the cluster has lost 1 of 4 nodes; going on with 1 prior and 3 decoder" in run.said, process)
    # Decoders that are left stand still, and so are ended in the middle of their calls.
    wait_for(lambda: len(run.living(but=first)) == len(run.living(but=[])) == 4, process)
    second = run.living(but=first)
    assert len({card(event) for event in second}) == 4, "one card each"
    assert {event["node"] for event in second} == {event["node"] for event in first} - {prior["node"]}
    (prior,) = (event for event in second if event["stage"] == "prior")

    # What is left then is so little that the prior can be done with it, and worth another decoder.
    run.allow(len(ROWS) - 2 * AHEAD_PER_DECODER)
    wait_for(lambda: run.living(but=first + second), process)
    (grown,) = run.living(but=first + second)
    assert (grown["stage"], card(grown)) == ("decoder", card(prior)), "the decoder has grown into the prior's card"
    wait_for(lambda: any(event["pid"] == grown["pid"] for event in run.events("begins")), process)
    run.allow(len(ROWS))
    assert process.wait(RUN_LIMIT_S) == 0, run.said
    assert wrong_with(run.output, run.manifest) == []
    assert grown["time"] > run.events("ends", "prior")[-1]["time"], "and not before the prior was done"
