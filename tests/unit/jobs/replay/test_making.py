"""An image made again from its record by real models: the very pixels of the run's batches, for every task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.replay import making
from jobs.replay.comparison import compare
from jobs.replay.making import Made, make
from jobs.replay.recorded import Recorded, find
from jobs.replay.request import parse_changes, request_batch
from jobs.run import run_folder
from manifests.batch import Batch
from manifests.config import RunConfig
from manifests.errors import CheckpointError, UsageError
from manifests.planning.plan import batches_of, plan
from manifests.requests.schema import TASKS
from tests.unit import finished_run
from tests.unit.replay_rows import replay_rows
from workers.stages.decoder import Decoder
from workers.stages.encode import encode_images
from workers.stages.inputs import load_inputs
from workers.stages.prior import Prior
from workers.stages.shards import seal, write_part

pytestmark = pytest.mark.models

Again = Callable[..., Made]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, Prior, Decoder]:
    """A run through the real stages, in batches of two, and the stages."""
    folder = tmp_path_factory.mktemp("run")
    rows: list[dict[str, Any]] = [
        row for row in replay_rows() if row.get("image") != {"bytes": None, "path": "photo.png"}
    ]
    config = finished_run.make_config(folder, rows, steps=4, prior_steps=2)
    planned = plan(config)
    run_folder.begin(config, planned)
    prior, decoder = Prior(config, "cpu"), Decoder(config, "cpu", tasks=TASKS)
    for batch in batches_of(config, planned.windows):
        batch = Batch.from_block(decoder(prior(load_inputs(batch, 224).to_block())))
        write_part(encode_images(batch, config), config.output)
    for number, shard in enumerate(planned.shards):
        seal(number, shard.batches, config.output, config)
    devices = [{"stage": name, "weights": stage.weights} for name, stage in (("prior", prior), ("decoder", decoder))]
    run_folder.finish(config, {"device": "cpu", "devices": devices, "versions": {}}, anew=True)
    return config, prior, decoder


@pytest.fixture
def again(run: tuple[RunConfig, Prior, Decoder], monkeypatch: pytest.MonkeyPatch) -> Again:
    """Makes a key's image again, with the models that the run has loaded."""
    _, prior, decoder = run
    monkeypatch.setattr(making, "Prior", lambda *_, **__: prior)
    monkeypatch.setattr(making, "Decoder", lambda *_, **__: decoder)

    def make_again(recorded: Recorded, *words: str, rows: int = 1) -> Made:
        batch = request_batch(recorded, parse_changes(words), rows)
        return make(recorded, batch, recorded.config, "cpu", lambda _: None)

    return make_again


def records(config: RunConfig) -> list[Recorded]:
    rows = [row for path in sorted(Path(config.output).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    return [find(config.output, row["key"]) for row in rows if row["status"] == "success"]


def test_in_a_call_of_as_many_rows_the_file_is_the_same_to_the_last_byte(
    run: tuple[RunConfig, Prior, Decoder], again: Again
) -> None:
    seen = set()
    for recorded in records(run[0]):
        made = again(recorded, rows=recorded.together())
        assert made.encoded == recorded.image(), recorded.row["key"]
        assert made.row["sha256"] == recorded.row["sha256"]
        seen.add((recorded.row["task"], recorded.together()))
    assert {task for task, _ in seen} == set(TASKS)
    assert ("text2img", 2) in seen


def test_alone_it_is_the_same_within_one_level(run: tuple[RunConfig, Prior, Decoder], again: Again) -> None:
    recorded = next(one for one in records(run[0]) if one.together() == 2)
    assert compare(recorded.image(), again(recorded).encoded).largest <= 1


def test_a_change_makes_another_image(run: tuple[RunConfig, Prior, Decoder], again: Again) -> None:
    recorded = records(run[0])[0]
    made = again(recorded, "seed=99", "width=128")
    assert (made.row["seed"], made.row["width"], len(made.pixels)) == (99, 128, 64 * 128 * 3)


def test_other_weights_than_those_of_the_record_are_refused(
    run: tuple[RunConfig, Prior, Decoder], again: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, prior, decoder = run
    recorded = records(run[0])[0]
    for stage, name in ((prior, "kandinsky-2-1-prior"), (decoder, "kandinsky-2-1")):
        with monkeypatch.context() as patch:
            patch.setattr(stage, "weights", {**stage.weights, name: "0" * 32})
            with pytest.raises(CheckpointError, match=f"{name} is not the one that the image was made with"):
                again(recorded)


def test_a_source_image_that_is_gone_is_one_sentence(
    run: tuple[RunConfig, Prior, Decoder], again: Again, tmp_path: Path
) -> None:
    recorded = next(one for one in records(run[0]) if one.row["task"] == "img2img")
    with pytest.raises(UsageError, match=r"^image \(.*gone.png\) does not exist"):
        again(recorded, f"image={tmp_path}/gone.png")
