"""Means and percentiles of scores are those of pandas, over all images, tasks and buckets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs import evaluate
from jobs.evaluation.scores import PERCENTILES, score_lines
from jobs.exporting.selection import Choice, select
from jobs.output.summary import summarize
from manifests.errors import UsageError
from tests.unit import finished_run


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = [{**row, "rating": place} for place, row in enumerate(finished_run.ROWS)]
    rows = [{**row, "width": row.get("width", 128 if place % 2 else 64)} for place, row in enumerate(rows)]
    config = finished_run.make_config(tmp_path_factory.mktemp("scores"), rows, scores="clip_similarity,image_phash")
    finished_run.run(config, broken=["r2"])
    return config.output


def test_they_are_those_of_pandas(output: str) -> None:
    chosen = select(output, summarize(output).stats, Choice())
    lines = score_lines(output, chosen, ())
    rows = pd.concat([pd.read_parquet(path) for path in sorted(Path(output).glob("0*.parquet"))])
    made = rows[rows.status == "success"]
    assert len(lines) == 4
    for line in lines:
        part = made if line.of in ("all", "text2img") else made[made.width == (128 if "128 x" in line.of else 64)]
        values = part[line.score]
        assert line.images == len(values)
        assert line.mean == pytest.approx(values.mean(), rel=1e-6)
        assert line.percentiles == pytest.approx(np.percentile(values, PERCENTILES), rel=1e-6)


def test_a_table_and_json_say_the_same(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--output", output, "--columns", "rating", "--where", "width = 128"]
    evaluate.main(asked)
    told = capsys.readouterr().out
    evaluate.main([*asked, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["distances"] is None
    assert f"{found['images']} images of {output}" in told
    assert f"| all | rating | {found['images']} | {found['scores'][0]['mean']:.4f} |" in told


def test_what_cannot_be_evaluated_gets_a_sentence(output: str, tmp_path: Path) -> None:
    for words, said in (
        (("--columns", "nothing"), "the index has no column 'nothing'"),
        (("--columns", "prompt"), "'prompt' holds string and no numbers"),
        (("--where", "rating > 99"), "takes none of the"),
        (("--where", "nothing = 1"), "the index has no column 'nothing'"),
        (("--limit", "0"), "option --limit"),
        (("--save-statistics", "x"), r"a name that ends with \.npz"),
        (("--output", str(tmp_path)), "no run was begun there"),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            evaluate.main(["--output", output, *words])
        assert "\n" not in str(caught.value)
