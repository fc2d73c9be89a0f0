"""Ids and seeds: unique over the manifest, stable when it is made again, and easy to redo."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.config import RunConfig
from manifests.planning import external_sort, ids
from manifests.planning.layout import key_of
from manifests.planning.plan import plan, window_batches
from manifests.requests import files
from manifests.requests.schema import REQUEST_NAMES
from manifests.requests.validation import resolve


def rows_of(path: Path, columns: dict[str, Any], **settings: Any) -> list[dict[str, Any]]:
    """Records of the first image of every request, in the manifest's order."""
    pq.write_table(pa.table(columns), path)
    job = RunConfig(manifest=(str(path),), output="out", **settings)
    batches = [batch for window in plan(job).windows for batch in window_batches(job, window)]
    rows = [sample for batch in batches for sample in batch.samples.to_pylist()]
    return sorted((s for s in rows if s["image_index"] == 0), key=lambda s: int(s["manifest_row"]))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.parquet"


def text2img(prompts: list[str], **columns: Any) -> dict[str, Any]:
    return {"task": ["text2img"] * len(prompts), "prompt": prompts, **columns}


def test_a_second_use_of_an_id_is_an_invalid_row_that_names_the_first(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "WINDOW_ROWS", 3)
    names = ["a", "b", "c", "a", "d", "e", "b", "a"]
    rows = rows_of(path, text2img(["x"] * 8, id=names), shard_size=2)
    assert [row["status"] == "success" for row in rows] == [True] * 3 + [False, True, True, False, False]
    assert rows[3]["error_message"] == "id: 'a' was already used by row 0 of the manifest; ids must be unique"
    assert "by row 1 of" in rows[6]["error_message"]
    assert "by row 0 of" in rows[7]["error_message"]


def test_other_errors_of_a_repeated_row_are_told_too(path: Path) -> None:
    rows = rows_of(path, text2img(["x"] * 2, id=["a", "a"], steps=[1, 0]))
    assert rows[1]["error_message"].startswith("id: 'a' was already used by row 0 of the manifest")
    assert "; steps: 0 is not" in rows[1]["error_message"]


def test_the_same_prompt_four_times_gives_four_images(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "WINDOW_ROWS", 3)
    rows = rows_of(path, text2img(["a", "b", "a", "a", "c", "a"]), shard_size=2)
    base = rows[0]["id"]
    assert len(base) == 32
    assert [rows[n]["id"] for n in (0, 2, 3, 5)] == [base, f"{base}-1", f"{base}-2", f"{base}-3"]
    assert len({row["seed"] for row in rows}) == 6
    assert {row["status"] for row in rows} == {"success"}


def test_a_manifest_made_again_in_other_types_keeps_its_ids(path: Path) -> None:
    columns = text2img(["a", "b"], height=[512, 64], guidance_scale=[4.0, None], negative_prompt=[None, ""])
    first = [row["id"] for row in rows_of(path, columns)]
    again = {
        "tag": [1, 2],
        "negative_prompt": pa.array([None, ""], pa.large_string()),
        "guidance_scale": pa.array(["4.0", None]),
        "height": pa.array([512.0, 64.0]),
        "prompt": pa.array(["a", "b"]).dictionary_encode(),
        "task": ["text2img"] * 2,
        "seed": pa.nulls(2),
        "id": pa.nulls(2),
        "conditions": pa.nulls(2),
    }
    assert [row["id"] for row in rows_of(path, again)] == first
    assert [row["id"] for row in rows_of(path, columns, steps=7, seed=9)] == first


def test_every_request_column_makes_an_id_of_its_own() -> None:
    base: dict[str, Any] = {"task": "text2img", "prompt": "x"}
    variants: list[dict[str, Any]] = [
        {},
        {"prompt": "xx"},
        {"negative_prompt": ""},
        {"negative_prompt": "x"},
        {"image": "x"},
        {"mask": "x"},
        {"image": {"bytes": b"x", "path": None}},
        {"image": {"bytes": b"", "path": None}},
        {"mask_polarity": "black"},
        {"conditions": [{"text": "a"}]},
        {"conditions": [{"text": "a"}, {"text": "b"}]},
        {"conditions": [{"text": "ab"}]},
        {"conditions": [{"text": "a"}, {"text": "b", "weight": 1.0}]},
        {"conditions": [{"image": "a"}]},
        {"conditions": []},
        {"conditions": [{"text": None}]},
        {"seed": 1},
        {"num_images": 1},
        *({name: 64} for name in REQUEST_NAMES[-7:]),
    ]
    digests = set()
    config = RunConfig(manifest=("m",), output="out")
    for variant in variants:
        table = pa.table({name: [value] for name, value in {**base, **variant}.items()})
        columns = resolve([table], config).given.columns
        digests.update(ids.content_digests(columns, np.array([0])))
    assert len(digests) == len(variants)


def test_a_digest_does_not_depend_on_the_rows_around_it() -> None:
    rows = [
        {"task": "text2img", "prompt": "x", "conditions": None, "image": None},
        {"task": "interpolate", "prompt": None, "conditions": [{"text": "a", "weight": 2.0}], "image": None},
        {"task": "img2img", "prompt": "y", "conditions": [], "image": {"bytes": b"i", "path": "p"}},
    ]
    config = RunConfig(manifest=("m",), output="out")
    together = resolve([pa.Table.from_pylist(rows)], config).given.columns
    whole = ids.content_digests(together, np.arange(3))
    for place, row in enumerate(rows):
        alone = resolve([pa.Table.from_pylist([row])], config).given.columns
        assert ids.content_digests(alone, np.array([0])) == [whole[place]]
        assert ids.content_digests(together, np.array([place])) == [whole[place]]


def test_an_id_copied_from_an_earlier_output_meets_no_content_id(path: Path) -> None:
    base = rows_of(path, text2img(["a"]))[0]["id"]
    names = [f"{base}-1", None, None, base, None]
    rows = rows_of(path, text2img(["x", "a", "a", "y", "b"], id=names))
    assert {row["status"] for row in rows} == {"success"}
    assert [row["id"] for row in rows[:4]] == [f"{base}-1", f"{base}-2", f"{base}-3", base]
    assert len({row["id"] for row in rows}) == 5


def test_an_empty_id_is_an_error_and_gets_a_content_id_to_be_found_by(path: Path) -> None:
    rows = rows_of(path, text2img(["a", "a"], id=["", None]))
    assert rows[0]["error_message"] == "id: '' is empty; use a unique name, or leave it null"
    assert rows[1]["status"] == "success"
    assert len({rows[0]["id"], rows[1]["id"]}) == 2


def test_a_missing_seed_can_be_redone_from_the_id_and_the_jobs_seed(path: Path) -> None:
    rows = rows_of(path, text2img(["a", "b"], id=["x", "é"], seed=pa.array([None, 2**64 - 1], pa.uint64())), seed=5)
    digest = hashlib.blake2b(b"5/x", digest_size=8).digest()
    assert rows[0]["seed"] == int.from_bytes(digest, "little") == ids.derive_seed(5, "x")
    assert rows[1]["seed"] == 2**64 - 1


def test_hashes_that_meet_by_chance_reject_no_row() -> None:
    names = pa.array(["a", "b", "c", "b"])
    seen = ids.WindowNames.of(names, [])
    # Pretend that "a" and "b" have one hash.
    seen.hashes[0] = seen.hashes[1]
    with ids.IdWatch() as watch:
        watch.see(seen)
        [repeats] = watch.repeats(lambda _: names)
    assert repeats.rows.tolist() == [3]
    assert repeats.numbers.tolist() == [1]


def test_what_repeats_is_found_as_well_when_it_was_sorted_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    windows = []
    for _ in range(20):
        names = [None if n < 60 else f"own {n % 500}" for n in rng.integers(0, 900, 100)]
        windows.append(pa.array(names, pa.string()))
    contents = [
        [hashlib.blake2b(bytes([rng.integers(0, 90)]), digest_size=16).digest()] * window.null_count
        for window in windows
    ]

    def found() -> list[tuple[list[int], list[int], list[bool]]]:
        with ids.IdWatch() as watch:
            for window, digests in zip(windows, contents, strict=True):
                watch.see(ids.WindowNames.of(window, digests))
            repeats = watch.repeats(lambda index: windows[index])
        return [(r.rows.tolist(), r.numbers.tolist(), r.own.tolist()) for r in repeats]

    in_memory = found()
    assert sum(len(rows) for rows, _, _ in in_memory) > 1000
    monkeypatch.setattr(external_sort, "RUN_ROWS", 150)
    assert found() == in_memory


def test_texts_have_equal_hashes_only_where_they_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["", "\0", "\0\0", "a", "ab", "ba", *(f"request-{n:07d}" for n in range(20_000))]
    whole = external_sort.text_hashes(pa.array(texts))
    assert len(set(whole.tolist())) == len(texts)
    assert external_sort.text_hashes(pa.array(texts)[3:9]).tolist() == whole[3:9].tolist()
    monkeypatch.setattr(external_sort, "_TEXT_BYTES", 1000)
    assert (external_sort.text_hashes(pa.array(texts)) == whole).all()


def test_keys_are_unique_whatever_the_number_of_shards_and_rejected_rows() -> None:
    assert key_of(0, 0, 1000) == "000000000"
    assert key_of(12, 345, 1000) == "000120345"
    assert key_of(12, 345, 100_000) == "0001200345"
    places = [(s, r) for s in (0, 1, 9, 10_000, 99_999, 100_000, 100_001) for r in (0, 1, 9999, 10_000, 11_111)]
    assert len({key_of(shard, row, 1000) for shard, row in places}) == len(places)
