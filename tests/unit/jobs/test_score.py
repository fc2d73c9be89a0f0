"""The command line of score.py: what it refuses in a sentence, and what it tells of an output that has all of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jobs import score
from manifests.config import RunConfig
from manifests.errors import UsageError
from tests.unit import finished_run


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    made = finished_run.make_config(tmp_path)
    finished_run.run(made)
    return made


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "nothing to do; give --scores, --keep-clip, --duplicates or --best-of-request"),
        (("--scores", "beauty"), "option --scores: should be clip_similarity, .* got 'beauty'"),
        (("--scores", "image_phash", "--shards", "3"), "option --shards: should be the share I/N .* got '3'"),
        (("--scores", "image_phash", "--decoder-actors", "x"), "option --decoder-actors: should be .* got 'x'"),
        (("--scores", "aesthetic_score"), "aesthetic_score needs --aesthetic-weights"),
        (("--scores", "aesthetic_score", "--aesthetic-weights", "gone.pth"), r"there is no file .*gone\.pth"),
        (("--scores", "all", "--aesthetic-weights", "{narrow}"), "embeddings of 3 numbers, and the CLIP of demo gives"),
    ],
)
def test_bad_usage_is_told_in_a_sentence(
    config: RunConfig, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    np.savez(tmp_path / "narrow.npz", weight=np.ones((1, 3)), bias=np.ones(1))
    given = [option.format(narrow=tmp_path / "narrow.npz") for option in options]
    with pytest.raises(UsageError, match=words) as caught:
        score.main(["--output", config.output, *given])
    assert "\n" not in str(caught.value)
    assert not (Path(config.output) / "_run" / "aesthetic.json").exists()


def test_what_is_there_already_is_not_computed_again(config: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert score.main(["--output", config.output, "--scores", "image_phash"]) == 0
    assert "3 shards have image_phash now, 0 had all of it before\n  image_phash: 10 images" in capsys.readouterr().out
    assert score.main(["--output", config.output, "--scores", "image_phash"]) == 0
    assert "0 shards have image_phash now, 3 had all of it before" in capsys.readouterr().out
