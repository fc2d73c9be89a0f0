"""The job against PyTorch diffusers (tests/goldens), and the documents' snippets against mindone's plain pipelines."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.run import run_folder
from manifests.config import RunConfig
from manifests.planning.plan import batches_of, plan
from tests.goldens.compare import (
    FOLDER,
    LATENTS_LIMIT,
    MANIFEST,
    PIXELS_LIMIT,
    ROOT,
    Difference,
    Made,
    differences,
    goldens,
    made,
    shuffled,
)
from tests.goldens.weights import digests
from tests.ray.conftest import SMALL, Job, write_manifest
from workers.checkpoints.locations import own_revision

pytestmark = [pytest.mark.ray, pytest.mark.models]

DOCUMENTS = ROOT / "manifests" / "examples" / "documents.parquet"

#: Requests of an image that is as many pixels as four of the goldens'.
LARGER = {"task": "text2img", "prompt": "a cat", "height": 128, "width": 128}

#: Goldens that need few graphs: the inpainting models would double the test's time.
FOR_GRAPHS = ("negative", "img2img-negative", "interpolate-two-texts")


def _run(folder: Path, environment: dict[str, str], manifests: list[Path], batch_size: int, *more: str) -> Path:
    options = ("--device", "cpu", "--checkpoint", "random", "--dump-latents", "--batch-size", str(batch_size), *more)
    job = Job(manifests[0], folder, environment, options)
    ended = job.run(folder / "out", "--manifest", *map(str, manifests))
    assert ended.returncode == 0, ended.stderr + ended.stdout
    return folder / "out"


@pytest.fixture(scope="module")
def by_four(tmp_path_factory: pytest.TempPathFactory, shared_environment: dict[str, str]) -> Path:
    """Output of the golden manifest in another order, of the documents' and of larger images, in batches of four."""
    folder = tmp_path_factory.mktemp("four")
    manifest = shuffled(1, folder / "shuffled.parquet")
    rows = [{**SMALL, **LARGER, "id": f"larger-{seed}", "seed": seed} for seed in range(2)]
    larger = write_manifest(folder / "larger.parquet", rows)
    return _run(folder, shared_environment, [manifest, DOCUMENTS, larger], 4, "--batch-pixels", str(4 * 64 * 64))


def _assert_within_limits(found: list[Difference]) -> None:
    assert len(found) == pq.read_table(MANIFEST).column("num_images").to_numpy().sum()
    assert [d for d in found if d.latents > LATENTS_LIMIT or d.pixels > PIXELS_LIMIT] == []


def test_every_image_is_pytorchs_in_batches_of_four_and_in_another_order(by_four: Path) -> None:
    _assert_within_limits(differences(made(by_four)))


# That calls of one, two and four rows agree is tested without a job too (tests/unit/workers/kandinsky).
@pytest.mark.nightly
def test_every_image_is_pytorchs_in_batches_of_one_and_that_of_batches_of_four(
    by_four: Path, tmp_path: Path, shared_environment: dict[str, str]
) -> None:
    ones, fours = made(_run(tmp_path, shared_environment, [MANIFEST], 1)), made(by_four)
    _assert_within_limits(differences(ones))
    assert ones.keys() <= fours.keys()
    for name, image in ones.items():
        assert np.abs(image.pixels.astype(int) - fours[name].pixels).max() <= 1, name


def test_a_bound_of_pixels_splits_the_calls_of_larger_images_and_changes_none(by_four: Path, plain: Any) -> None:
    bounded = run_folder.settings(str(by_four))
    free = bounded.model_copy(update={"batch_pixels": None})

    def calls(config: RunConfig) -> Counter[tuple[int, int]]:
        found = batches_of(config, plan(config).windows)
        return Counter((batch.bucket.height, batch.bucket.width) for batch in found if batch.bucket is not None)

    assert json.loads((by_four / "_run" / "plan.json").read_text())["batches"] == plan(bounded).batches
    assert calls(bounded) - calls(free) == {(128, 128): 1}, "each of the two larger ones has a call of its own"
    images = made(by_four)
    for name in ("larger-0-0", "larger-1-0"):
        assert np.abs(images[name].pixels.astype(int) - plain.make(dict(images[name].row))).max() <= 1, name


def test_compiled_graphs_make_pytorchs_images_and_the_record_says_what_compiling_took(
    tmp_path: Path, shared_environment: dict[str, str]
) -> None:
    requests = pq.read_table(MANIFEST)
    pq.write_table(requests.filter(pc.field("id").isin(FOR_GRAPHS)), tmp_path / "few.parquet")
    # A machine that stops in the middle of a batch makes that as slow as a compilation, but not in each of three runs.
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        output = _run(tmp_path / str(number), shared_environment, [tmp_path / "few.parquet"], 2, "--graph")
        if _slowest_batch(output) < _slowest_compilation(output):
            break
    else:
        pytest.fail("batches were timed with their compilation")
    images = made(output)
    assert len(images) == 3
    found = differences(images, images)
    assert [d for d in found if d.latents > LATENTS_LIMIT or d.pixels > PIXELS_LIMIT] == []

    compiled = json.loads((output / "_run" / "run.json").read_text())["compilations"]
    assert all(one["seconds"] > 0.1 and one["device"].startswith("the CPU of") for one in compiled)
    assert all(one["why"] is None and one["difference"] < 1e-4 for one in compiled)
    # Batches of one image are filled up, so each model has one shape; the prior has two, for one of the requests has no
    # negative prompt.
    assert sorted((one["stage"], one["part"], one["shape"]) for one in compiled) == [
        ("decoder", "movq decode", [2, 4, 8, 8]),
        ("decoder", "movq encode", [2, 3, 64, 64]),
        ("decoder", "unet", [4, 4, 8, 8]),
        ("prior", "prior", [4, 64]),
        ("prior", "prior", [8, 64]),
    ]


def _slowest_batch(output: Path) -> float:
    times = json.loads((output / "_run" / "times.json").read_text())
    return max(seconds for bucket in times["buckets"] for seconds in bucket["seconds"].values())


def _slowest_compilation(output: Path) -> float:
    return max(one["seconds"] for one in json.loads((output / "_run" / "run.json").read_text())["compilations"])


def test_the_goldens_are_pictures_that_differ_from_each_other() -> None:
    images = {name: pixels.astype(int) for name, _, pixels in goldens()}
    assert min(pixels.std() for pixels in images.values()) > 10, "a flat image would equal anything"
    assert max((pixels % 255 == 0).mean() for pixels in images.values()) < 0.1, "a saturated image hides differences"
    square = [pixels for pixels in images.values() if pixels.shape == (64, 64, 3)]
    apart = [np.abs(a - b).mean() for i, a in enumerate(square) for b in square[:i]]
    assert min(apart) > 2 * PIXELS_LIMIT


def test_the_goldens_were_made_with_the_weights_that_the_job_uses(checkpoint_of_the_job: Path) -> None:
    assert digests(checkpoint_of_the_job) == json.loads((FOLDER / "random" / "made_with.json").read_text())["weights"]


def test_each_documents_snippet_gives_the_image_of_the_plain_pipelines(by_four: Path, plain: Any) -> None:
    images = made(by_four)
    requests = pq.read_table(DOCUMENTS).to_pylist()
    assert len(requests) == 5
    for request in requests:
        image = images[f"{request['id']}-0"]
        expected = plain.make(_plain_row(request, image))
        assert expected.std() > 10
        assert np.abs(image.pixels.astype(int) - expected).max() <= 1, request["id"]


def test_dumped_latents_lie_beside_every_image_of_a_shard(by_four: Path) -> None:
    for path in sorted(by_four.glob("*.tar")):
        with tarfile.open(path) as tar:
            names = tar.getnames()
        keys = list(dict.fromkeys(name.split(".", 1)[0] for name in names))
        assert names == [f"{key}.{kind}" for key in keys for kind in ("png", "txt", "json", "latent.npy")]


@pytest.fixture(scope="module")
def checkpoint_of_the_job(by_four: Path, clean_environment: dict[str, str]) -> Path:
    """The checkpoint that the job built, or found, in its cache."""
    (folder,) = Path(clean_environment["KANDINSKY_BATCH_CACHE"]).glob(own_revision("random"))
    return folder


@pytest.fixture(scope="module")
def plain(checkpoint_of_the_job: Path) -> Any:
    from workers.device import device

    device.take("cpu")
    from tests.plain import PlainPipelines
    from workers.kandinsky import pipelines  # noqa: F401  (mends the attention without which the plain prior cannot run)

    return PlainPipelines(checkpoint_of_the_job)


def _plain_row(request: Mapping[str, Any], image: Made) -> dict[str, Any]:
    """What `PlainPipelines.make` takes: the resolved settings, and the inputs as a person would load them."""

    def load(source: Mapping[str, Any], mode: str = "RGB") -> Image.Image:
        if source["bytes"] is None:
            return Image.open(DOCUMENTS.parent / source["path"]).convert(mode)
        return Image.open(io.BytesIO(source["bytes"])).convert(mode)

    row = dict(image.row)
    for column, mode in (("image", "RGB"), ("mask", "L")):
        if request[column] is not None:
            row[column] = load(request[column], mode)
    if request["conditions"] is not None:
        row["conditions"] = [
            (c["text"] if c["image"] is None else load(c["image"]), c["weight"]) for c in request["conditions"]
        ]
    return row
