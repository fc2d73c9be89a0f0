"""What is committed under an output: names of parts and shard files, and the records that say what they hold.

    OUTPUT/00000.tar                           images, captions and records of the shard's successful samples
    OUTPUT/00000.parquet                       one row per sample, failed ones too
    OUTPUT/00000_stats.json                    written last: a shard is sealed when this file exists
    OUTPUT/_run/parts/00000/00000.arrow        a finished batch of a shard that is not sealed yet
    OUTPUT/_run/clip/…                         with --keep-clip (manifests/embeddings/kept_clip.py)

Names are decided by the plan alone, so that doing a thing twice overwrites it with the same bytes. Five
digits are the width for sorting, not a limit. A shard without one successful sample has no tar: `datasets`
cannot open an empty one as its first file, and webdataset refuses a worker that got nothing else.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections import Counter
from collections.abc import Mapping
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from manifests import storage
from manifests.batch import Bucket
from manifests.config import RunConfig
from manifests.errors import SUCCESS, StorageError, general

#: Where parts are staged, under the output.
PARTS_FOLDER = "_run/parts"

#: Stats files, or indexes, read at the same time; on an object store each is one round trip.
READERS = 16

_STATS_NAME = re.compile(r"^(\d{5,})_stats\.json$")
_PART_NAME = re.compile(r"^(\d{5,})\.arrow$")
_FOLDER_NAME = re.compile(r"^(\d{5,})/?$")


#: Kinds of failure that are told apart in one batch; a message of its own for every row must not fill a receipt.
_MOST_KINDS = 20


class FailureKind(BaseModel):
    """Samples that failed in the same way.

    Attributes:
        status: the stage that they failed in.
        reason: what their messages have in common (`manifests.errors.general`).
        count: how many.
        example: id and message of the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: str
    reason: str
    count: int
    example: str


#: Failures of one batch that its receipt tells of, and letters of each reason.
TOLD_FAILURES, TOLD_LETTERS = 3, 300


class RowFailure(BaseModel):
    """A failed sample: which, and why, as in the index but at most `TOLD_LETTERS` long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    manifest_row: int | None
    id: str
    status: str
    message: str


class Receipt(BaseModel):
    """What the driver learns about a staged batch.

    Attributes:
        shard, batch: place in the plan.
        count: samples of the batch, successful and failed.
        successes: those with an image.
        failed_by_status: number of failed samples per status, statuses in alphabetical order.
        failure_kinds: the same by their reasons.
        bytes: size of the staged part.
        bucket: what its samples share; None for rows that failed validation.
        seconds: how long each guarded stage worked on it.
        embedded: samples that the prior embedded for it; the others' embeddings were known, or they failed before.
        failures: its first failed samples, at most `TOLD_FAILURES`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shard: int
    batch: int
    count: int
    successes: int
    failed_by_status: Mapping[str, int]
    failure_kinds: tuple[FailureKind, ...] = ()
    bytes: int
    bucket: Bucket | None = None
    seconds: Mapping[str, float] = Field(default_factory=dict)
    embedded: int = 0
    failures: tuple[RowFailure, ...] = ()


class FileStats(BaseModel):
    """One committed file: its name under the output, its size, and the SHA-256 of its bytes in hex."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    bytes: int
    sha256: str


class ShardStats(BaseModel):
    """Content of `NNNNN_stats.json`. Holds no times, so that sealing twice writes the same bytes.

    Attributes:
        schema_version: layout of the shard's files and of this record.
        task: the one task of the shard; None where no sample has a valid one.
        count: samples of the shard; `successes + failed`.
        bytes: sum of the image files' sizes, as they are inside the tar.
        tar: None for a shard without a successful sample.
        clip: files of the images' embeddings; None where the shard was sealed without `--keep-clip`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    shard: int
    task: str | None
    count: int
    successes: int
    failed: int
    failed_by_status: Mapping[str, int]
    bytes: int
    tar: FileStats | None
    parquet: FileStats
    clip: tuple[FileStats, ...] | None = None

    @property
    def files(self) -> tuple[FileStats, ...]:
        """All that the record speaks for."""
        return tuple(file for file in (self.tar, self.parquet, *(self.clip or ())) if file is not None)


#: What `failure_kinds` reads.
FAILURE_COLUMNS = ("id", "status", "error_message")


def failure_kinds(samples: pa.Table) -> tuple[FailureKind, ...]:
    """How the failed ones of some samples failed.

    Args:
        samples: FAILURE_COLUMNS of them.
    """
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    failed = samples.filter(pc.not_equal(samples.column("status"), SUCCESS))
    for row_id, status, message in zip(*(failed.column(name).to_pylist() for name in FAILURE_COLUMNS), strict=True):
        kind = (status, general(message or ""))
        if kind not in counts and len(counts) >= _MOST_KINDS:
            kind = (status, "other reasons")
        counts[kind] += 1
        examples.setdefault(kind, storage.shortened(f"{row_id}: {message}"))
    return tuple(
        FailureKind(status=status, reason=reason, count=count, example=examples[status, reason])
        for (status, reason), count in counts.items()
    )


def shard_name(shard: int) -> str:
    """Stem of a shard's files: `00042`."""
    return f"{shard:05d}"


def tar_name(shard: int) -> str:
    """Name of the shard's tar in the output's root."""
    return f"{shard_name(shard)}.tar"


def index_name(shard: int) -> str:
    """Name of the shard's Parquet index in the output's root."""
    return f"{shard_name(shard)}.parquet"


def stats_name(shard: int) -> str:
    """Name of the shard's commit marker in the output's root."""
    return f"{shard_name(shard)}_stats.json"


def member_suffixes(config: RunConfig) -> tuple[str, ...]:
    """What follows a sample's key in the names of its members of the tar, in order; the image comes first."""
    return (f".{config.image_format}", ".txt", ".json", *((".latent.npy",) if config.dump_latents else ()))


def parts_url(output_url: str, shard: int) -> str:
    """Folder that a shard's parts are staged in."""
    return storage.join(output_url, PARTS_FOLDER, shard_name(shard))


def part_url(output_url: str, shard: int, batch: int) -> str:
    """Where one finished batch is staged."""
    return storage.join(parts_url(output_url, shard), f"{batch:05d}.arrow")


def sealed_shards(output_url: str) -> set[int]:
    """Numbers of the shards that are sealed, by one listing of the output's root."""
    matches = (_STATS_NAME.match(name) for name in storage.list_names(output_url))
    return {int(match.group(1)) for match in matches if match}


def staged_parts(output_url: str) -> dict[int, set[int]]:
    """Batches that are staged, by shard, in one listing per shard. Half-written files do not count."""
    listed = storage.list_names(storage.join(output_url, PARTS_FOLDER))
    folders = (_FOLDER_NAME.match(name) for name in listed)
    found = {}
    for shard in sorted(int(match.group(1)) for match in folders if match):
        names = (_PART_NAME.match(name) for name in storage.list_names(parts_url(output_url, shard)))
        batches = {int(match.group(1)) for match in names if match}
        if batches:
            found[shard] = batches
    return found


def read_stats(output_url: str, shard: int) -> ShardStats:
    """The commit record of a sealed shard.

    Raises:
        StorageError: it cannot be read, or it is not a record of this layout.
    """
    url = storage.join(output_url, stats_name(shard))
    try:
        return ShardStats.model_validate_json(storage.read_bytes(url))
    except ValidationError as error:
        raise StorageError(
            f"{url} is not a commit record of this program ({error.error_count()} problems, first: "
            f"{error.errors()[0]['msg']}); remove it and start the job again to seal the shard once more"
        ) from error


def write_stats(output_url: str, stats: ShardStats) -> None:
    """Commit a shard: from here on it is sealed."""
    # Without what it is not about, as it always was.
    data = stats.model_dump_json(indent=2, exclude={"clip"} if stats.clip is None else None).encode() + b"\n"
    storage.write_atomic(storage.join(output_url, stats_name(stats.shard)), data)


def describe_file(path: str, name: str) -> FileStats:
    """What the record of a shard says of a local file that is to lie under this name."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return FileStats(name=name, bytes=os.path.getsize(path), sha256=digest.hexdigest())


def put_files(stats: ShardStats, folder: str, target_url: str) -> None:
    """Copy a shard's files, as they lie in one local folder, to their places; all but the record itself.

    Raises:
        StorageError: the storage refused.
    """
    for place, names in _by_folder(stats).items():
        storage.put_together([os.path.join(folder, name) for name in names], storage.join(target_url, place))


def copy_files(stats: ShardStats, source_url: str, target_url: str) -> None:
    """The same from one output, or what is laid out as one, to another.

    Raises:
        StorageError: the storage refused.
    """
    for place, names in _by_folder(stats).items():
        storage.copy_together(
            [storage.join(source_url, place, name) for name in names], storage.join(target_url, place)
        )


def _by_folder(stats: ShardStats) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    # Embeddings first: where they cannot be written, no reader finds images that are not sealed.
    for file in reversed(stats.files):
        place, name = posixpath.split(file.name)
        found.setdefault(place, []).append(name)
    return {place: names[::-1] for place, names in found.items()}
