"""Scores of a finished output are those that the run would have given, and a kill loses none of its shards."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from jobs.run import run_folder
from jobs.scoring import job
from jobs.scoring.job import Scored, score
from jobs.verification.output import verify
from manifests.batch import Batch
from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.planning.plan import batches_of, plan
from manifests.requests.schema import TASKS
from manifests.scores import SCORES
from tests.unit import finished_run
from tests.unit.replay_rows import inline, replay_rows
from workers.embeddings.lookup import recall, remembered
from workers.scoring.columns import columns_of, with_scores
from workers.stages.decoder import Decoder
from workers.stages.encode import encode_images
from workers.stages.inputs import load_inputs
from workers.stages.prior import Prior
from workers.stages.shards import seal, write_part

pytestmark = pytest.mark.models


def _run(config: RunConfig) -> None:
    """A run through the real stages, with the store of embeddings."""
    planned = plan(config)
    run_folder.begin(config, planned)
    prior, decoder = Prior(config, "cpu"), Decoder(config, "cpu", tasks=TASKS)
    columns = columns_of(config.score_names, config.checkpoint)
    for batch in recall(batches_of(config, planned.windows), remembered(config, "cpu"), "pass"):
        batch = Batch.from_block(decoder(prior(load_inputs(batch, 224).to_block())))
        write_part(with_scores(encode_images(batch, config), columns), config.output)
    for number, shard in enumerate(planned.shards):
        seal(number, shard.batches, config.output, config)
    run_folder.finish(config, {}, anew=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, RunConfig]:
    """Two outputs of one manifest: scored by the run, and not scored."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "photo.png").write_bytes(inline(9)["bytes"])
    settings = {"steps": 4, "prior_steps": 2, "shard_size": 3}
    scored = finished_run.make_config(folder, replay_rows(), output=str(folder / "scored"), scores="all", **settings)
    plain = finished_run.make_config(folder, replay_rows(), output=str(folder / "plain"), **settings)
    _run(scored)
    _run(plain)
    return scored, plain


@pytest.fixture
def plain(runs: tuple[RunConfig, RunConfig], tmp_path: Path) -> RunConfig:
    """A copy to score."""
    shutil.copytree(runs[1].output, tmp_path / "copy")
    return runs[1].model_copy(update={"output": str(tmp_path / "copy")})


def table(config: RunConfig) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(path) for path in sorted(Path(config.output).glob("0*.parquet"))])


def add(config: RunConfig, *names: str) -> Scored:
    return score(run_folder.settings(config.output), names or SCORES, "cpu", lambda _: None)


def contents(config: RunConfig) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(config.output).iterdir() if path.is_file()}


def test_the_run_scores_every_image_of_every_task(runs: tuple[RunConfig, RunConfig]) -> None:
    rows = table(runs[0])
    made = rows[rows.status == "success"]
    assert set(made.task) == set(TASKS)
    assert made.image_phash.str.fullmatch("[0-9a-f]{16}").all()
    assert made.clip_similarity.between(-1, 1).all()
    assert made.prior_fidelity.between(-1, 1).all()
    assert (made.clip_similarity_source.notna() == made.task.isin(["img2img", "inpaint"])).all()
    assert rows[rows.status != "success"][list(SCORES)].isna().all(axis=None)
    assert verify(runs[0]).right


def test_scored_afterwards_it_is_the_output_that_the_run_would_have_scored(
    runs: tuple[RunConfig, RunConfig], plain: RunConfig
) -> None:
    before = table(plain)
    done = add(plain)
    assert (done.before, done.shards) == (0, len(list(Path(plain.output).glob("0*_stats.json"))))
    meant, found = table(runs[0]), table(plain)
    for name in SCORES[:-1]:
        assert (meant[name].notna() == found[name].notna()).all(), name
        assert np.nanmax(np.abs(meant[name] - found[name])) < 1e-5, name
    assert done.images == {name: int(found[name].notna().sum()) for name in SCORES}
    assert list(found.image_phash.dropna()) == list(meant.image_phash.dropna())
    pd.testing.assert_frame_equal(found[before.columns], before)
    for schema in (pq.read_schema(f"{config.output}/00000.parquet") for config in (runs[0], plain)):
        assert schema.names[-4:] == list(SCORES)
        assert all(b"description" in (schema.field(name).metadata or {}) for name in SCORES)
    assert verify(plain).right
    assert run_folder.settings(plain.output).score_names == SCORES
    again = contents(plain)
    assert add(plain).shards == 0
    assert contents(plain) == again


def test_scores_that_are_there_are_kept_beside_new_ones(runs: tuple[RunConfig, RunConfig], plain: RunConfig) -> None:
    add(plain, "image_phash")
    assert list(table(plain).columns[-1:]) == ["image_phash"]
    hashes = list(table(plain).image_phash.dropna())
    assert hashes
    add(plain, "clip_similarity")
    rows = table(plain)
    assert list(rows.columns[-2:]) == ["clip_similarity", "image_phash"]
    assert list(rows.image_phash.dropna()) == hashes
    assert np.nanmax(np.abs(rows.clip_similarity - table(runs[0]).clip_similarity)) < 1e-5
    assert verify(plain).right


def test_a_kill_leaves_whole_shards_and_the_same_command_goes_on(
    plain: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """As a kill: nothing handles it."""

    real, calls = job.seal_with, 0

    def dying(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Killed
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(job, "seal_with", dying)
        with pytest.raises(Killed):
            add(plain, "image_phash")
    assert verify(plain).right
    done = add(plain, "image_phash")
    assert done.before == 2
    assert "image_phash" in table(plain).columns
    assert verify(plain).right


def test_without_a_store_only_the_priors_intent_is_missing(plain: RunConfig) -> None:
    shutil.rmtree(Path(plain.output) / "_run" / "embeddings")
    done = add(plain)
    assert done.images["prior_fidelity"] == 0
    assert done.images["clip_similarity"] == done.images["image_phash"] > 0


def test_rows_appended_or_tried_again_have_the_same_columns(plain: RunConfig) -> None:
    add(plain, "image_phash")
    asked = RunConfig(**{**plain.model_dump(exclude_unset=True), "append": True})
    assert run_folder.as_begun(asked).score_names == ("image_phash",)
    other = asked.model_copy(update={"scores": "all"})
    with pytest.raises(UsageError, match="was begun with image_phash and not with all"):
        run_folder.check(other, plan(other))


@pytest.fixture
def moved(plain: RunConfig, tmp_path: Path) -> RunConfig:
    """An output whose manifest is another one now."""
    path = tmp_path / "m.parquet"
    finished_run.write_manifest(path)
    return plain.model_copy(update={"manifest": (str(path),)})


def test_what_cannot_be_scored_is_told_before_anything_changes(plain: RunConfig, moved: RunConfig) -> None:
    before = contents(plain)
    with pytest.raises(UsageError, match=r"is not what .* was made of"):
        score(moved, SCORES, "cpu", print)
    (Path(plain.output) / "_SUCCESS").unlink()
    with pytest.raises(UsageError, match="is not finished; start the job again"):
        add(plain)
    assert contents(plain) == {name: data for name, data in before.items() if name != "_SUCCESS"}
