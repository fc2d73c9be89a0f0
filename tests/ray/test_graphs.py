"""What `--graph auto` chooses is compiled at the first start and at any later one, and the bytes are the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs.cost.step_times import GraphTimes, StepTimes
from tests.ray.conftest import SMALL, Job

pytestmark = [pytest.mark.ray, pytest.mark.models]

SHAPE = "text2img 64x64 guided"


def times(saved: float, shape: tuple[int, ...]) -> GraphTimes:
    return GraphTimes(part="unet", shape=shape, compiling=0.001, graph=2.0, operators=2.0 + saved)


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """An output whose run has found graphs of small images faster, and of wide ones slower."""
    measured = (times(1.0, (4, 4, 8, 8)), times(-1.0, (4, 4, 8, 16)))
    record = StepTimes(device="cpu", batch_size=2, prior_actors=1, decoder_actors=1, buckets=(), graphs=measured)
    (tmp_path / "earlier" / "_run").mkdir(parents=True)
    (tmp_path / "earlier" / "_run" / "times.json").write_text(record.model_dump_json())
    return tmp_path / "earlier"


def test_a_later_start_compiles_what_the_first_one_has_chosen_and_makes_the_same_bytes(
    make_job: Callable[[Sequence[dict[str, Any]]], Job], earlier: Path, tmp_path: Path
) -> None:
    widths = (64, 64, 64, 128, 128)
    rows = [{**SMALL, "task": "text2img", "prompt": f"cat {n}", "seed": n, "width": w} for n, w in enumerate(widths)]
    job, output, made = make_job(rows), tmp_path / "out", []
    for options in (("--times-of", str(earlier)), ()):
        ended = job.run(output, "--shard-size", "10", *options)
        assert ended.returncode == 0, ended.stderr
        report = json.loads((output / "_run" / "run.json").read_text())
        # Of prior and MoVQ nothing was measured.
        assert [(one["part"], one["shape"]) for one in report["compilations"]] == [("unet", [4, 4, 8, 8])]
        assert report["graphs"].startswith(f"graphs: {SHAPE} (4 steps of {SHAPE} an actor save 4s, ")
        assert report["graphs"] in ended.stderr
        assert json.loads((output / "_run" / "graphs-cpu.json").read_text())["choice"]["decoder"] == [SHAPE]
        made.append((output / "00000.tar").read_bytes())
        # As if it had been killed before it had sealed anything.
        for path in (*output.glob("00000*"), output / "_SUCCESS"):
            path.unlink()
    assert made[0] == made[1]
