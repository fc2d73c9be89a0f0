"""Which rows an export has: those that a condition of SQL takes and that have an image, in the order asked for."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from jobs.exporting.selection import Choice, Selection, select
from jobs.output.catalog import read_rows
from jobs.output.summary import summarize
from manifests.errors import UsageError


def chosen(output: str, **given: object) -> Selection:
    return select(output, summarize(output).stats, Choice(**given))  # type: ignore[arg-type]


def keys(output: str, found: Selection) -> list[str]:
    return [
        read_rows(output, int(shard), np.array([row]))[0]["key"]
        for shard, row in zip(found.shards, found.rows, strict=True)
    ]


def table(output: str) -> pd.DataFrame:
    """All indexes, as pandas reads them."""
    return pd.concat(
        [pd.read_parquet(f"{output}/{one.parquet.name}") for one in summarize(output).stats], ignore_index=True
    )


@pytest.mark.parametrize(
    ("where", "meant"),
    [
        ("rating >= 1.5", lambda t: t.rating >= 1.5),
        ("image_index = 1 AND id != 'r1'", lambda t: (t.image_index == 1) & (t.id != "r1")),
        ("note = 'it''s 3'", lambda t: t.note == "it's 3"),
        (
            "Rating BETWEEN 1 AND 2 OR prompt LIKE '%end'",
            lambda t: t.rating.between(1, 2) | t.prompt.str.endswith("end"),
        ),
        ("negative_prompt IS NULL", lambda t: t.negative_prompt.isna()),
        ("seed > 9223372036854775808", lambda t: t.seed > 2**63),
        ("status = 'success'", lambda t: t.status == "success"),
        ("rating IN (SELECT 2.5)", lambda t: t.rating == 2.5),
    ],
)
def test_exactly_the_images_that_the_condition_is_true_for(output: str, where: str, meant: object) -> None:
    rows = table(output)
    wanted = rows[meant(rows) & (rows.status == "success")]  # type: ignore[operator]
    assert len(wanted) > 0
    assert keys(output, chosen(output, where=where)) == list(wanted.key)


def test_rows_without_an_image_are_left_out_and_counted_where_they_were_asked_for(output: str) -> None:
    rows = table(output)
    assert len(chosen(output)) == (rows.status == "success").sum()
    found = chosen(output, where="id IN ('r1', 'r2', 'wrong')")
    assert found.without_image == 2
    assert len(found) == 2


def test_a_limit_takes_the_first_ones_and_with_shuffle_a_sample_of_all(output: str) -> None:
    everything = keys(output, chosen(output))
    assert keys(output, chosen(output, limit=3)) == everything[:3]
    shuffled = keys(output, chosen(output, shuffle=5))
    assert shuffled != everything
    assert sorted(shuffled) == everything
    assert keys(output, chosen(output, shuffle=5, limit=3)) == shuffled[:3]
    assert keys(output, chosen(output, shuffle=6)) != shuffled


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("ratng > 1", "the index has no column 'ratng'; did you mean 'rating'?"),
        ("clip > 1", "the index has no column 'clip'; there are key, id, image_index"),
        ('status = "success"', "if it is meant as text, write 'success'"),
        ("rating >", "is no condition that can be asked of a row .Parser Error: syntax error"),
        ("rating > 1; DROP TABLE x", "is no condition"),
        ("", "is no condition"),
        ("rating > 'high'", "Could not convert string 'high'"),
        ("sum(rating) > 1", "cannot contain aggregates"),
        ("rating > 99", "'rating > 99' takes none of the 9 images; nothing was exported"),
        ("status != 'success'", "takes none of the 9 images but 2 that failed"),
    ],
)
def test_a_condition_of_no_use_is_told_in_a_sentence(output: str, where: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        chosen(output, where=where)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("option --where: ")


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        ("read_text('/etc/passwd')", "disabled by configuration"),
        ("read_csv('/etc/passwd')", "disabled by configuration"),
        ("'/etc/passwd'", "does not exist"),
        ("output", "does not exist"),
    ],
)
def test_a_condition_reads_no_files_and_nothing_of_this_program(output: str, reading: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        chosen(output, where=f"EXISTS (SELECT * FROM {reading})")
