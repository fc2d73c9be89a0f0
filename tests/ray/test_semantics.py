"""What is asked for can be seen in the pictures: the job with the demo checkpoint, judged without a model."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.goldens.compare import LATENTS_LIMIT, PIXELS_LIMIT, differences, requests_of
from tests.goldens.compare import made as made_with_latents
from tests.ray.conftest import Job
from tests.semantics import measures, requests
from workers.checkpoints.locations import local_folder

pytestmark = [pytest.mark.ray, pytest.mark.models]

OPTIONS = ("--device", "cpu", "--checkpoint", "demo", "--batch-size", "8")


def _run(manifest: Path, folder: Path, environment: dict[str, str], *options: str) -> Path:
    ended = Job(manifest, folder, environment, (*OPTIONS, *options)).run(folder / "out")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    return folder / "out"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, shared_environment: dict[str, str]) -> list[measures.Made]:
    folder = tmp_path_factory.mktemp("semantics")
    return measures.made(_run(requests.write(folder / "requests.parquet", few=True), folder, shared_environment))


@pytest.fixture(scope="module")
def values(images: list[measures.Made]) -> dict[str, float]:
    from workers.device import device

    device.take("cpu")
    from tests.semantics.round_trip import round_trip

    return measures.measure(images, round_trip(local_folder("demo", lambda _name, _config: {})))


@pytest.mark.parametrize("name", sorted(measures.LIMITS))
def test_a_measure_reaches_its_limit(values: dict[str, float], name: str) -> None:
    assert values[name] >= measures.LIMITS[name], values


def test_every_measure_has_a_limit(values: dict[str, float]) -> None:
    assert values.keys() == measures.LIMITS.keys()


def test_the_measures_fall_where_requests_get_each_others_images(images: list[measures.Made]) -> None:
    pictures = [picture for _, picture in images]
    rows = [row for row, _ in images]
    swapped = list(zip(rows, [*pictures[7:], *pictures[:7]], strict=True))
    found = measures.measure(swapped, {number: canvas for number, (canvas, _) in enumerate(requests.canvases())})
    judged = [name for name in found if "asked for" in name or "both objects" in name]
    assert len(judged) == 8
    assert all(found[name] < measures.LIMITS[name] / 2 for name in judged), found


# Both are held against PyTorch in test_goldens.py, with weights that show more of what differs.
@pytest.mark.nightly
def test_graphs_and_batches_of_one_show_the_same_objects(
    images: list[measures.Made], tmp_path: Path, shared_environment: dict[str, str]
) -> None:
    few = pq.read_table(requests.write(tmp_path / "all.parquet", few=True)).slice(0, 8)
    pq.write_table(few, tmp_path / "few.parquet")
    output = _run(tmp_path / "few.parquet", tmp_path, shared_environment, "--batch-size", "1", "--graph")
    again = measures.best_objects(measures.made(output))
    assert len(again) == 8
    before = measures.best_objects(images)
    assert again == {name: before[name] for name in again}


def test_the_trained_weights_make_pytorchs_images(tmp_path: Path, shared_environment: dict[str, str]) -> None:
    pq.write_table(requests_of("demo"), tmp_path / "goldens.parquet")
    output = _run(tmp_path / "goldens.parquet", tmp_path, shared_environment, "--dump-latents", "--batch-size", "2")
    found = differences(made_with_latents(output), checkpoint="demo")
    assert {difference.task for difference in found} == {"text2img", "img2img", "inpaint", "interpolate"}
    assert [d for d in found if d.latents > LATENTS_LIMIT or d.pixels > PIXELS_LIMIT] == []
