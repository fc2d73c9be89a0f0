"""Ranking an output: groups and places are columns of its indexes, whole or not there, and exports ask for them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from jobs.exporting.selection import Choice, select
from jobs.output.summary import summarize
from jobs.ranking import job
from jobs.ranking.job import Ranked, rank
from jobs.ranking.rules import Rules
from jobs.run import run_folder
from jobs.scoring.job import score
from jobs.verification.output import verify
from jobs.verification.repair import repair
from manifests.config import RunConfig
from manifests.errors import UsageError
from tests.unit import finished_run
from tests.unit.jobs.killed import killed_at
from workers.stages.reseal import reseal_rows, sealed_rows

ROWS = [
    {
        "id": f"r{i}",
        "task": "text2img",
        "prompt": f"prompt {i}",
        "num_images": 3,
        "width": 65 if i == 4 else 64,
        "note": i,
    }
    for i in range(6)
]

#: By key; images without one keep what was computed, which is near to nothing.
HASHES = {"0": "00000000000000ff", "7": "00000000000000fe", "15": "0000000000000ffe", "3": "ffffffff00000000"}


def told(_: str) -> None:
    """Nobody listens."""


def change(config: RunConfig, column: str, values: Mapping[str, Any]) -> None:
    """Give some images other values of a column, by the number of their row in the output."""
    row = 0
    for stats in summarize(config.output).stats:
        pieces = []
        for rows in sealed_rows(stats.shard, config.output, config):
            place = rows.schema.get_field_index(column)
            old = rows[column].to_pylist()
            new = [values.get(str(row + i), value) for i, value in enumerate(old)]
            row += len(old)
            field = rows.schema.field(column)
            pieces.append(rows.set_column(place, field, pa.array(new, field.type)))
        reseal_rows(stats.shard, iter(pieces), config.output, config)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    config = finished_run.make_config(
        tmp_path_factory.mktemp("ranked"), ROWS, scores="clip_similarity,image_phash", shard_size=4
    )
    finished_run.run(config, broken=["r1"])
    change(config, "image_phash", HASHES)
    return config


@pytest.fixture
def config(finished: RunConfig, tmp_path: Path) -> RunConfig:
    shutil.copytree(finished.output, tmp_path / "copy")
    return finished.model_copy(update={"output": str(tmp_path / "copy")})


def table(config: RunConfig) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(path) for path in sorted(Path(config.output).glob("0*.parquet"))])


def ranked(config: RunConfig, **given: Any) -> Ranked:
    return rank(run_folder.settings(config.output), Rules(**given), told)


def contents(config: RunConfig) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(config.output).iterdir() if path.is_file()}


def test_near_images_are_one_group_through_each_other(config: RunConfig) -> None:
    before = table(config)
    keys = before.key.tolist()
    done = ranked(config, bits=4)
    shards = len(summarize(config.output).stats)
    assert done == Ranked(shards, before=0, images=12, groups=1, duplicates=2, not_compared=0)
    rows = table(config).set_index("key")
    # The first and the last differ in five bits.
    assert rows.duplicate_group[[keys[0], keys[7], keys[15]]].tolist() == [keys[0]] * 3
    assert rows.duplicate_rank[[keys[0], keys[7], keys[15]]].tolist() == [0, 1, 2]
    others = rows[rows.status == "success"].drop([keys[0], keys[7], keys[15]])
    assert others.duplicate_group.tolist() == others.index.tolist()
    assert set(others.duplicate_rank) == {0}
    failed = rows[rows.status != "success"]
    assert len(failed) > 3
    assert failed[["duplicate_group", "duplicate_rank"]].isna().all(axis=None)
    pd.testing.assert_frame_equal(table(config)[before.columns], before)
    assert verify(config).right


def test_the_same_again_changes_nothing_and_another_rule_does(config: RunConfig) -> None:
    ranked(config, bits=4)
    once = contents(config)
    assert ranked(config, bits=4).shards == 0
    assert contents(config) == once
    assert ranked(config, bits=1).duplicates == 1
    assert table(config).duplicate_rank.max() == 1
    assert json.loads((Path(config.output) / "_run/rankings.json").read_text())["duplicates"] == "image_phash:1"


def test_the_one_to_keep_is_the_best_by_a_column(config: RunConfig) -> None:
    change(config, "clip_similarity", {"0": 0.2, "7": None, "15": 0.9})
    keys = table(config).key.tolist()
    ranked(config, bits=4, best_by="clip_similarity")
    rows = table(config).set_index("key")
    assert rows.duplicate_rank[[keys[15], keys[0], keys[7]]].tolist() == [0, 1, 2]
    assert rows.duplicate_group[keys[15]] == keys[0]


def test_the_images_of_a_request_are_ranked_and_an_export_takes_the_best(config: RunConfig) -> None:
    change(config, "clip_similarity", {"1": None})
    ranked(config, best_of_request="clip_similarity")
    rows = table(config)
    made = rows[rows.status == "success"]
    for _, mine in made.groupby("id"):
        placed = mine.dropna(subset=["clip_similarity"]).sort_values("clip_similarity", ascending=False)
        assert placed.rank_in_request.tolist() == list(range(len(placed)))
    assert rows[rows.clip_similarity.isna()].rank_in_request.isna().all()
    ranked(config, bits=4)
    assert list(table(config).columns[-3:]) == ["duplicate_group", "duplicate_rank", "rank_in_request"]
    stats = summarize(config.output).stats
    assert len(select(config.output, stats, Choice("rank_in_request = 0"))) == 4
    assert len(select(config.output, stats, Choice("duplicate_rank = 0"))) == 10
    chosen = select(config.output, stats, Choice(f"duplicate_group = '{made.key.iloc[0]}'"))
    assert len(chosen) == 3
    assert verify(config).right


def test_a_kill_leaves_whole_shards_and_the_same_command_goes_on(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with killed_at(monkeypatch, job, "reseal_rows", call=3):
        ranked(config, bits=4)
    assert verify(config).right
    with pytest.raises(UsageError, match=r"has no column 'duplicate_rank'; .*score\.py with --duplicates"):
        select(config.output, summarize(config.output).stats, Choice("duplicate_rank = 0"))
    assert ranked(config, bits=4).before == 2
    assert verify(config).right


def test_shares_are_ranked_as_one(config: RunConfig, tmp_path: Path) -> None:
    shutil.copytree(config.output, tmp_path / "shared")
    shared = config.model_copy(update={"output": str(tmp_path / "shared")})
    for share in ("1/2", "2/2"):
        rank(run_folder.settings(shared.output, shards=share), Rules(bits=4), told)
    ranked(config, bits=4)
    assert contents(shared) == contents(config)


def test_embeddings_that_are_kept_are_compared(config: RunConfig, tmp_path: Path) -> None:
    kept = finished_run.make_config(tmp_path, ROWS, keep_clip=True, shard_size=4)
    finished_run.run(kept, broken=["r1"])
    made = np.flatnonzero(table(kept).status == "success").tolist()
    vectors = np.random.default_rng(0).standard_normal((len(made), 16))
    vectors[8] = vectors[2] + 0.01
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    change(kept, "clip_embeds", {str(row): vector for row, vector in zip(made, vectors, strict=True)})
    change(kept, "clip_embeds", {str(made[-1]): None})
    done = ranked(kept, cosine=0.99)
    assert (done.groups, done.duplicates, done.not_compared) == (1, 1, 1)
    rows = table(kept)
    assert rows.duplicate_group.iloc[made[8]] == rows.key.iloc[made[2]]
    assert rows.duplicate_rank.iloc[[made[2], made[8]]].tolist() == [0, 1]
    assert np.isnan(rows.duplicate_rank.iloc[made[-1]])
    assert verify(kept).right
    assert ranked(kept, cosine=0.99, bits=None).shards == 0


def test_a_lost_index_is_built_again_with_its_ranks(config: RunConfig) -> None:
    ranked(config, bits=4, best_of_request="clip_similarity")
    before = contents(config)
    (Path(config.output) / "00002.parquet").unlink()
    (mended,) = repair(config, verify(config), refuse, told)
    assert mended.mended == ("00002.parquet",)
    assert contents(config) == before


def test_scores_that_come_later_stand_before_the_ranks(tmp_path: Path) -> None:
    config = finished_run.make_config(tmp_path, ROWS, scores="clip_similarity")
    finished_run.run(config)
    ranked(config, best_of_request="clip_similarity")
    score(run_folder.settings(config.output), ["image_phash"], False, "cpu", told)
    assert list(table(config).columns[-3:]) == ["clip_similarity", "image_phash", "rank_in_request"]
    before = contents(config)
    (Path(config.output) / "00000.parquet").unlink()
    assert [one.mended for one in repair(config, verify(config), refuse, told)] == [("00000.parquet",)]
    assert contents(config) == before


def refuse(*_: Any) -> None:
    """No image is lost, so none is made."""
    raise AssertionError


def test_what_cannot_be_ranked_gets_a_sentence_and_nothing_changes(config: RunConfig, tmp_path: Path) -> None:
    before = contents(config)
    for rules, said in (
        ({"bits": 4, "best_by": "nothing"}, "the index has no column 'nothing'"),
        ({"bits": 4, "best_by": "clip_similarty"}, "did you mean 'clip_similarity'?"),
        ({"best_of_request": "prompt"}, "the column 'prompt' holds string and no numbers"),
        ({"best_of_request": "prior_fidelity"}, "no column 'prior_fidelity'; add it first: --scores prior_fidelity"),
        ({"cosine": 0.9}, "keeps no embeddings of its images; add them first: --keep-clip"),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            ranked(config, **rules)
        assert "\n" not in str(caught.value)
    assert contents(config) == before
    named = finished_run.make_config(tmp_path, [{**ROWS[0], "duplicate_rank": 7}], scores="image_phash")
    finished_run.run(named)
    with pytest.raises(UsageError, match="the manifest has a column 'duplicate_rank'"):
        ranked(named, bits=4)
    (Path(config.output) / "_SUCCESS").unlink()
    with pytest.raises(UsageError, match="is not finished"):
        ranked(config, bits=4)
