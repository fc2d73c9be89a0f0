"""A finished run to damage, and what verification then says."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from jobs.verification.output import verify
from jobs.verify import show
from manifests.commit import read_stats
from manifests.config import RunConfig


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
