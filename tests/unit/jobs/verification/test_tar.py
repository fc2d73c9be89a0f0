"""What is wrong with a tar is named: flipped bytes, and members that are dropped, doubled, moved or changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.verification.output import verify
from manifests.config import RunConfig
from tests.unit.jobs.verification.damage import found, mend_stats, rewrite_tar, words


def test_every_single_flipped_byte_of_a_tar_is_found(config: RunConfig) -> None:
    path = Path(config.output) / "00000.tar"
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 23):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        assert {p for _, p in found(config)} & {"00000.tar"}, place
    path.write_bytes(whole)
    assert verify(config).right


def test_a_changed_image_is_found_even_where_the_stats_agree(config: RunConfig) -> None:
    def change(members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        return [(name, data[:-1] + b"!" if name.endswith(".png") else data) for name, data in members]

    rewrite_tar(Path(config.output) / "00001.tar", change)
    assert ("stats", "00001.tar") in found(config)
    mend_stats(config, 1)
    assert found(config) == {("images", "00001.tar"), ("_SUCCESS", "_SUCCESS")}
    assert "the sha256 of 000010000.png is not the one in the index" in words(config)


@pytest.mark.parametrize("kind", ["png", "txt", "json"])
def test_a_dropped_member_is_named(config: RunConfig, kind: str) -> None:
    name = f"000000001.{kind}"
    rewrite_tar(Path(config.output) / "00000.tar", lambda members: [m for m in members if m[0] != name])
    mend_stats(config, 0)
    assert ("tar", "00000.tar") in found(config)
    assert f"member {name} is missing" in words(config)


def test_doubled_and_foreign_members_are_named(config: RunConfig) -> None:
    rewrite_tar(Path(config.output) / "00000.tar", lambda members: [*members, members[0], ("x.png", b"?")])
    mend_stats(config, 0)
    told = words(config)
    assert "member 000000000.png is there twice" in told
    assert "member x.png belongs to no row of the index" in told


def test_members_out_of_order_and_other_captions_are_found(config: RunConfig) -> None:
    rewrite_tar(Path(config.output) / "00000.tar", lambda members: [*members[3:], *members[:3]])
    mend_stats(config, 0)
    assert ("tar", "00000.tar") in found(config)

    def change(members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        return [(name, b"another" if name.endswith((".txt", ".json")) else data) for name, data in members]

    rewrite_tar(Path(config.output) / "00001.tar", change)
    told = words(config)
    assert "000010000.txt is not the caption in the index" in told
    assert "000010000.json is not the record in the index" in told
