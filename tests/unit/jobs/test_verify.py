"""Verify says yes to a right output, and names each kind of damage."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from jobs.verify import Verdict, show, verify
from manifests.commit import read_stats, staged_parts
from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.planning.plan import batches_of, plan
from tests.unit import finished_run
from workers.stages.shards import write_part

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    made = finished_run.make_config(tmp_path)
    finished_run.run(made)
    return made


def found(config: RunConfig) -> set[tuple[str, str]]:
    """Check and place of every finding."""
    return {(finding.check, finding.place) for finding in verify(config).findings}


def words(config: RunConfig) -> str:
    sink = io.StringIO()
    show(verify(config), Console(file=sink, width=200))
    return sink.getvalue()


def rewrite_tar(path: Path, change: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]) -> None:
    with tarfile.open(path) as tar:
        members = [(m.name, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in change(members):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def mend_stats(config: RunConfig, shard: int) -> None:
    """Make the stats file agree with the damaged files, as a careful forger would."""
    stats = json.loads(read_stats(config.output, shard).model_dump_json())
    for kind in ("tar", "parquet"):
        data = (Path(config.output) / stats[kind]["name"]).read_bytes()
        stats[kind].update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (Path(config.output) / f"{shard:05d}_stats.json").write_text(json.dumps(stats))


def test_a_finished_run_is_right_with_requests_and_images_counted(config: RunConfig) -> None:
    verdict = verify(config)
    assert verdict.findings == []
    assert (verdict.requests, verdict.whole, verdict.failed) == (8, 7, 1)
    assert (verdict.images_written, verdict.images_failed, verdict.shards) == (10, 1, 3)
    assert "8 requests, 7 written + 1 failed" in words(config)
    assert "all of it is right" in words(config)


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


def edit_index(config: RunConfig, shard: int, change: Callable[[pa.Table], pa.Table]) -> None:
    path = Path(config.output) / f"{shard:05d}.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    mend_stats(config, shard)


def with_column(name: str, change: Callable[[list[Any]], list[Any]]) -> Callable[[pa.Table], pa.Table]:
    def changed(table: pa.Table) -> pa.Table:
        values = change(table.column(name).to_pylist())
        place = table.schema.get_field_index(name)
        return table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))

    return changed


def test_an_edited_index_is_found(config: RunConfig) -> None:
    edit_index(config, 0, with_column("prompt", lambda values: ["forged", *values[1:]]))
    told = words(config)
    assert "sample 000000000: prompt is 'forged', the manifest says 'prompt 0'" in told
    assert "000000000.json is not the record in the index" in told


def test_doubled_missing_and_extra_rows_are_named(config: RunConfig) -> None:
    edit_index(config, 0, with_column("key", lambda values: [values[0], values[0], *values[2:]]))
    told = words(config)
    assert "key 000000000 is there 2 times" in told
    assert "sample 000000001 is missing" in told
    edit_index(config, 1, lambda table: table.slice(1))
    assert "sample 000010000 is missing" in words(config)
    edit_index(config, 2, with_column("key", lambda values: ["odd", *values[1:]]))
    assert "sample odd is not planned" in words(config)


def test_a_row_that_claims_to_have_failed_validation_is_found(config: RunConfig) -> None:
    edit_index(config, 1, with_column("status", lambda values: ["failed_to_validate", *values[1:]]))
    assert "validation of the manifest says 'success'" in words(config)


def test_missing_files_are_named(config: RunConfig) -> None:
    output = Path(config.output)
    (output / "00001_stats.json").unlink()
    told = words(config)
    assert "shard 00001: is planned, but has no stats file" in told
    assert "requests are in no index" in told
    assert "_SUCCESS: is there although the output is not right" in told
    for path in output.glob("00001*"):
        path.unlink()
    (output / "00000.tar").unlink()
    (output / "00002.parquet").unlink()
    assert {("tar", "00000.tar"), ("index", "00002.parquet"), ("shards", "shard 00001")} <= found(config)


def test_wrong_counts_in_the_stats_are_found(config: RunConfig) -> None:
    path = Path(config.output) / "00000_stats.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "failed": 3, "bytes": 1}))
    assert {("stats", "shard 00000"), ("stats", "00000.tar")} <= found(config)
    path.write_text("{")
    assert ("stats", "shard 00000") in found(config)


def test_leftovers_and_a_missing_marker_are_found(config: RunConfig) -> None:
    batch = next(iter(batches_of(config, plan(config).windows)))
    write_part(finished_run.made(batch, config), config.output)
    assert staged_parts(config.output)
    (Path(config.output) / "_SUCCESS").unlink()
    (Path(config.output) / "00007.tar").write_bytes(b"")
    assert found(config) == {
        ("left over", "_run/parts/00000"),
        ("_SUCCESS", "_SUCCESS"),
        ("shards", "00007.tar"),
    }


def test_another_manifest_is_told_first(config: RunConfig, tmp_path: Path) -> None:
    other = finished_run.write_manifest(tmp_path / "other.parquet", finished_run.ROWS[:-1])
    verdict = verify(config.model_copy(update={"manifest": (other,)}))
    assert verdict.findings[0].check == "manifest"
    assert not verdict.right


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    config = finished_run.make_config(tmp_path)
    with pytest.raises(UsageError, match="no run was begun there"):
        verify(config)


def test_object_storage_is_verified_alike(tmp_path: Path) -> None:
    config = finished_run.make_config(tmp_path, output="memory://verify/out")
    finished_run.run(config)
    assert verify(config).right
    fs = fsspec.filesystem("memory")
    fs.rm("/verify/out/00001.tar")
    assert ("tar", "00001.tar") in found(config)


def test_many_findings_are_counted_and_the_first_shown() -> None:
    from jobs.verification.shard import Finding

    sink = io.StringIO()
    show(Verdict([Finding("tar", f"{i:05d}.tar", "is missing") for i in range(100)]), Console(file=sink, width=200))
    assert "100 wrong" in sink.getvalue()
    assert "and 70 more" in sink.getvalue()


def test_the_script_exits_with_the_verdict(config: RunConfig, tmp_path: Path) -> None:
    def start(*options: str) -> subprocess.CompletedProcess[str]:
        script = str(ROOT / "jobs" / "verify.py")
        return subprocess.run([sys.executable, script, *options], cwd=tmp_path, capture_output=True, text=True)

    options = ("--manifest", "m.parquet", "--output", "out")
    assert start(*options).returncode == 0
    (tmp_path / "out" / "00000.tar").unlink()
    ended = start(*options)
    assert ended.returncode == 1
    assert "tar: 00000.tar: is missing" in ended.stdout
    assert start("--manifest", "m.parquet").returncode == 2
    assert "--manifest" in start("--help").stdout
