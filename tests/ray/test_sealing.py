"""Seals that are quick follow each other in one process; beside one that takes long, others go on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.engine.ledger import BESIDE_S, Sealer
from manifests.config import RunConfig

pytestmark = pytest.mark.ray

#: A machine that does not do it in that time hangs.
LIMIT_S = 300


def seal_when_told(shard: int, batches: int, output: str, config: RunConfig) -> None:
    """Stands where a seal stands: tells who it is, and ends as soon as it may."""
    Path(output, f"{shard}.new").write_text(str(os.getpid()))
    Path(output, f"{shard}.new").rename(Path(output, f"{shard}.began"))
    wait_for(Path(output, f"{shard}.may-end").exists)


def wait_for(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


@pytest.mark.usefixtures("driver")
def test_another_seal_starts_beside_those_that_take_long_and_not_before(tmp_path: Path) -> None:
    config = RunConfig(manifest=("m.parquet",), output=str(tmp_path), device="cpu")
    seconds, sealed = [0.0], list[int]()
    sealer = Sealer(config, dict.fromkeys(range(4), 1), seal_when_told, sealed.append, now=lambda: seconds[0])

    def began(shard: int) -> bool:
        sealer.poll()
        return (tmp_path / f"{shard}.began").exists()

    def process(shard: int) -> str:
        wait_for(lambda: began(shard))
        return (tmp_path / f"{shard}.began").read_text()

    for shard in range(4):
        sealer.add(shard)
    first = process(0)
    assert sealer.running == [0]
    (tmp_path / "0.may-end").touch()
    assert process(1) == first, "what it needs is imported there"
    assert sealer.running == [1]
    seconds[0] += BESIDE_S
    assert process(2) != first
    sealer.poll()
    assert sealer.running == [1, 2], "the second has just begun"
    # The one that takes long holds nobody up but itself.
    (tmp_path / "2.may-end").touch()
    wait_for(lambda: began(3))
    assert (sealer.running, sealed) == ([1, 3], [0, 2])
    for shard in (1, 3):
        (tmp_path / f"{shard}.may-end").touch()
    sealer.finish()
    assert sorted(sealed) == [0, 1, 2, 3]
