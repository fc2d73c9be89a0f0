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
from jobs.scoring import shards
from jobs.scoring.job import Scored, score
from jobs.verification.output import verify
from manifests.batch import Batch
from manifests.config import RunConfig
from manifests.embeddings import kept_clip
from manifests.embeddings.clip_retrieval import read_folder
from manifests.errors import UsageError
from manifests.planning.plan import batches_of, plan
from manifests.requests.schema import TASKS
from manifests.scores import SCORES
from tests.unit import finished_run
from tests.unit.jobs.killed import killed_at
from tests.unit.replay_rows import inline, replay_rows
from workers.checkpoints.locations import prior_setting
from workers.embeddings.lookup import recall, remembered
from workers.scoring import aesthetic
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
    scored = finished_run.make_config(
        folder, replay_rows(), output=str(folder / "scored"), scores="all", keep_clip=True, **settings
    )
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


def add(config: RunConfig, *names: str, keep_clip: bool = False) -> Scored:
    asked = names or (() if keep_clip else SCORES)
    return score(run_folder.settings(config.output), asked, keep_clip, "cpu", lambda _: None)


def contents(config: RunConfig) -> dict[str, bytes]:
    files = [*Path(config.output).iterdir(), *Path(config.output, kept_clip.FOLDER).rglob("*")]
    return {path.name: path.read_bytes() for path in files if path.is_file()}


def vectors(config: RunConfig) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Keys and embeddings as a reader of clip-retrieval's layout has them."""
    pieces = list(read_folder(f"{config.output}/{kept_clip.FOLDER}"))
    return [key for piece in pieces for key in piece[0]["key"].to_pylist()], np.concatenate([one[1] for one in pieces])


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
    with killed_at(monkeypatch, shards, "seal_with", call=3):
        add(plain, "image_phash")
    assert verify(plain).right
    done = add(plain, "image_phash")
    assert done.before == 2
    assert "image_phash" in table(plain).columns
    assert verify(plain).right


def test_the_run_keeps_an_embedding_of_every_image(runs: tuple[RunConfig, RunConfig]) -> None:
    rows = table(runs[0])
    keys, matrix = vectors(runs[0])
    assert keys == list(rows[rows.status == "success"].key)
    assert matrix.dtype == np.float16
    assert np.abs(np.linalg.norm(matrix.astype(np.float32), axis=1) - 1).max() < 2e-3


def test_embeddings_kept_afterwards_are_those_that_the_run_would_have_kept(
    runs: tuple[RunConfig, RunConfig], plain: RunConfig
) -> None:
    columns = list(table(plain).columns)
    add(plain, keep_clip=True)
    assert list(table(plain).columns) == columns
    (keys, found), (meant_keys, meant) = vectors(plain), vectors(runs[0])
    assert keys == meant_keys
    assert np.abs(found.astype(np.float32) - meant).max() < 2e-3
    assert verify(plain).right
    before = contents(plain)
    add(plain, "image_phash")
    kept = [name for name in before if name.startswith(("img_emb", "metadata"))]
    assert kept
    assert {name: contents(plain)[name] for name in kept} == {name: before[name] for name in kept}
    assert verify(plain).right


def test_the_aesthetic_score_is_the_predictors_of_the_embedding_that_is_kept(plain: RunConfig, tmp_path: Path) -> None:
    width = int(prior_setting("demo", "image_encoder", "projection_dim"))
    vector = np.random.default_rng(1).normal(size=(1, width)) * 4
    np.savez(tmp_path / "weights.npz", weight=vector, bias=np.array([5.0]))
    config = run_folder.settings(plain.output, aesthetic_weights=str(tmp_path / "weights.npz"))
    score(config, ["aesthetic_score"], True, "cpu", lambda _: None)
    rows, (keys, matrix) = table(plain), vectors(plain)
    found = rows.set_index("key").aesthetic_score
    assert np.ptp(found.dropna()) > 0.05
    assert np.abs(found[keys] - (matrix.astype(np.float64) @ vector[0] + 5)).max() < 0.02
    assert found.drop(keys).isna().all()
    assert verify(plain).right
    # The weights are in the output now, and others are refused.
    assert aesthetic.kept(plain.output) is not None
    assert run_folder.settings(plain.output).score_names == ("aesthetic_score",)
    np.savez(tmp_path / "other.npz", weight=2 * vector, bias=np.array([5.0]))
    with pytest.raises(UsageError, match="has scores by other weights"):
        score(config.model_copy(update={"aesthetic_weights": str(tmp_path / "other.npz")}), SCORES, False, "cpu", print)


def test_embeddings_that_are_damaged_or_gone_are_made_again(plain: RunConfig) -> None:
    add(plain, keep_clip=True)
    right = contents(plain)
    damaged, gone = (Path(plain.output, kept_clip.names(shard)[shard]) for shard in (0, 1))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    gone.unlink()
    assert sorted(verify(plain).damaged) == [0, 1]
    assert add(plain, keep_clip=True).shards == 2
    assert verify(plain).right
    assert contents(plain).keys() == right.keys()


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
        score(moved, SCORES, False, "cpu", print)
    (Path(plain.output) / "_SUCCESS").unlink()
    with pytest.raises(UsageError, match="is not finished; start the job again"):
        add(plain)
    assert contents(plain) == {name: data for name, data in before.items() if name != "_SUCCESS"}
