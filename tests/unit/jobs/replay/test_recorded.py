"""Looking a key up: every row of an output is found, and what is not there is told in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.replay.recorded import find
from manifests.config import RunConfig
from manifests.errors import StorageError, UsageError
from manifests.planning.layout import key_of, shards_of
from manifests.planning.plan import batches_of, plan
from workers.device.device import DeviceKind
from workers.kandinsky.graph_choice import NOTHING


def test_every_row_of_an_output_is_found_by_its_key(config: RunConfig) -> None:
    rows = [row for path in sorted(Path(config.output).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert {row["status"] for row in rows} == {"success", "failed_to_generate", "failed_to_validate"}
    for row in rows:
        recorded = find(config.output, row["key"])
        assert recorded.row == row
        assert recorded.config == config


@pytest.mark.parametrize("size", [1, 1000, 10_001, 1_000_000])
def test_a_key_names_its_shard_whatever_their_size_and_number(size: int) -> None:
    for shard in (0, 7, 99_999, 100_000, 12_345_678):
        for row in (0, size - 1, 20_000_000):
            assert shard in shards_of(key_of(shard, row, size), size)


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("cat.png", "is not a key; the column `key` of the indexes"),
        ("", "is not a key"),
        ("٠٠٠٠٠٠٠٠٠", "is not a key"),
        ("000990000", "has no sealed shard 00099; check the key, or wait"),
        ("000000999", "the index of shard 00000 has no such row"),
    ],
)
def test_a_key_that_is_not_there_is_told_with_what_to_do(config: RunConfig, key: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        find(config.output, key)


def test_no_run_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run was begun there"):
        find(str(tmp_path), "000000000")


def test_how_many_images_the_run_made_together_follows_from_the_index(config: RunConfig) -> None:
    seen = set()
    for batch in batches_of(config, plan(config).windows):
        ids = batch.values("id", batch.pending)
        made = [key for key, name in zip(batch.values("key", batch.pending), ids, strict=True) if name != "broken"]
        for key in made:
            assert find(config.output, key).together() == len(made), key
        seen.add(len(made))
    assert seen == {0, 1, 2}


def test_calls_that_the_pixels_bound_have_fewer_rows(config: RunConfig) -> None:
    recorded = find(config.output, "000000000")
    assert recorded.together() == 2
    object.__setattr__(recorded, "config", config.model_copy(update={"batch_pixels": 64 * 64}))
    assert recorded.together() == 1


@pytest.mark.parametrize(
    ("device", "graph", "rows"), [("cpu", "off", None), ("cpu", "on", 2), ("cpu", "auto", 2), ("ascend", "off", 2)]
)
def test_calls_are_known_to_have_been_filled_up_where_they_were_compiled(
    config: RunConfig, device: DeviceKind, graph: str, rows: int | None
) -> None:
    recorded = find(config.output, "000000000")
    object.__setattr__(recorded, "config", config.model_copy(update={"graph": graph}))
    choice = {"prior": False, "decoder": ["text2img 64x64 guided"], "movq": False}
    (Path(config.output) / "_run" / "graphs-cpu.json").write_text(json.dumps({"choice": choice, "reason": "-"}))
    assert recorded.full_call(device) == rows


def test_an_output_of_a_run_that_has_chosen_nothing_was_made_without_graphs(config: RunConfig) -> None:
    assert config.graph == "auto"
    assert find(config.output, "000000000").graphs("cpu") == NOTHING


def test_copies_of_a_deduped_run_are_not_taken_for_images_of_one_call(config: RunConfig) -> None:
    recorded = find(config.output, "000000000")
    assert recorded.together() == 2
    object.__setattr__(recorded, "config", config.model_copy(update={"dedupe": True}))
    assert recorded.together() == 1


def test_an_image_that_is_not_in_its_shard_is_told(config: RunConfig) -> None:
    recorded = find(config.output, "000000000")
    assert recorded.image().startswith(b"\x89PNG")
    (Path(config.output) / "00000.tar").write_bytes(b"no tar")
    with pytest.raises(StorageError, match=r"00000\.tar is damaged"):
        recorded.image()
