"""A manifest that is a product is known by its rows, whatever its columns are called; others are not taken for one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.output import product as products
from jobs.output.product import Product
from jobs.output.sample import draw_sample
from jobs.output.summary import summarize
from manifests.config import RunConfig
from tests.unit import finished_run

PROMPTS, STYLES, SEEDS = ("a fox", "a hen", "an owl"), ("{} in oil", "{} in chalk"), (7, 3, 5, 4)


def product_rows(**more: Any) -> list[dict[str, Any]]:
    """Three prompts in two styles with four seeds; the columns that tell them apart have names of their own."""
    return [
        {
            "id": f"r{number}",
            "task": "text2img",
            "prompt": style.format(prompt),
            "seed": seed,
            "num_images": 1,
            "subject": prompt,
            "way": STYLES.index(style),
            **more,
        }
        for number, (prompt, style, seed) in enumerate(itertools.product(PROMPTS, STYLES, SEEDS))
    ]


def found(config: RunConfig) -> Product | None:
    summary = summarize(config.output)
    return draw_sample(config.output, summary.stats, summary.planned["requests"], 0, 6).product


def finished(folder: Path, rows: Sequence[dict[str, Any]], broken: Sequence[str] = (), **settings: Any) -> RunConfig:
    config = finished_run.make_config(folder, rows, **settings)
    finished_run.run(config, broken)
    return config


def shape(product: Product | None) -> list[tuple[str, list[Any], int]] | None:
    return product and [(one.name, list(one.values), one.count) for one in product.factors]


WHOLE = [("subject", list(PROMPTS), 3), ("way", [0, 1], 2), ("seed", list(SEEDS), 4)]


def test_the_factors_are_found_with_their_values_in_order(tmp_path: Path) -> None:
    config = finished(tmp_path, product_rows())
    product = found(config)
    assert shape(product) == WHOLE
    assert product is not None
    shard, position = product.places[13]
    assert pq.read_table(f"{config.output}/{shard:05d}.parquet")["id"][position].as_py() == "r13"


def test_rows_that_failed_or_were_refused_or_are_not_made_yet_do_not_hide_it(tmp_path: Path) -> None:
    rows = product_rows()
    rows[6]["width"] = 65
    config = finished(tmp_path, rows, broken=["r3"])
    (Path(config.output) / "00002_stats.json").unlink()
    product = found(config)
    assert shape(product) == WHOLE
    assert product is not None
    assert 3 in product.places
    assert 6 not in product.places


def test_prompts_times_seeds_and_seeds_times_prompts_are_both_products(tmp_path: Path) -> None:
    for place, order in enumerate(([0, 1], [1, 0])):
        factors = [("prompt", PROMPTS), ("seed", SEEDS)]
        names, values = zip(*(factors[i] for i in order), strict=True)
        rows = [
            {"id": f"r{i}", "task": "text2img", "num_images": 1, **dict(zip(names, row, strict=True))}
            for i, row in enumerate(itertools.product(*values))
        ]
        folder = tmp_path / str(place)
        folder.mkdir()
        assert shape(found(finished(folder, rows))) == [
            (n, list(v), len(v)) for n, v in zip(names, values, strict=True)
        ]


def test_a_setting_as_a_factor_and_several_images_of_a_row_are_no_hindrance(tmp_path: Path) -> None:
    rows = [
        {"id": f"r{i}", "task": "text2img", "num_images": 2, "prompt": prompt, "guidance_scale": scale}
        for i, (prompt, scale) in enumerate(itertools.product(PROMPTS, (2.0, 4.5)))
    ]
    assert shape(found(finished(tmp_path, rows))) == [("prompt", list(PROMPTS), 3), ("guidance_scale", [2.0, 4.5], 2)]


@pytest.mark.parametrize(
    "rows",
    [
        [{"prompt": f"prompt {i}", "seed": i % 4} for i in range(24)],
        [{"prompt": f"prompt {i // 4}", "seed": 100 + i} for i in range(24)],
        [{"prompt": f"prompt {i // 4}", "seed": i % 4} for i in range(23)],
        [{"prompt": "the same", "seed": i} for i in range(12)],
        [{"prompt": f"prompt {i // 4}", "seed": (i % 4) * (i != 9)} for i in range(24)],
        [{"prompt": f"prompt {i // 4}", "seed": int(np.random.default_rng(i).integers(4))} for i in range(24)],
    ],
    ids=["turning seeds", "other seeds", "a part", "one prompt", "one is otherwise", "seeds at random"],
)
def test_what_only_looks_like_one_is_none(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    common = {"task": "text2img", "num_images": 1}
    config = finished(tmp_path, [{"id": f"r{i}", **common, **row} for i, row in enumerate(rows)])
    assert found(config) is None


def test_the_first_rows_of_a_large_one_tell_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "LOOKED", 10)
    product = found(finished(tmp_path, product_rows()))
    # Of the slowest factor two values are seen, and that it has three follows from the number of rows.
    assert shape(product) == [("subject", list(PROMPTS[:2]), 3), *WHOLE[1:]]
    assert product is not None
    assert sorted(product.places) == list(range(10))
