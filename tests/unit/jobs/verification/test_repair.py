"""Damage is mended byte for byte, by making no more than what is lost; what cannot be proved is left as it is."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa
import pytest

from jobs.run.retry_errors import FailedRows
from jobs.verification.output import verify
from jobs.verification.rebuild import Mending
from jobs.verification.repair import repair
from manifests import storage
from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.planning.plan import Plan, batches_of
from tests.unit import finished_run
from tests.unit.jobs.verification.damage import edit_index, with_column
from workers.stages.shards import write_part

Damage = Callable[[Path], object]


class Device:
    """Makes the images of `finished_run`, and remembers which."""

    def __init__(self, other: bool = False) -> None:
        self.keys: list[str] = []
        self._other = other

    def __call__(self, config: RunConfig, planned: Plan, rows: FailedRows, root: str) -> None:
        for batch in batches_of(config, planned.windows, rows):
            made = finished_run.made(rows.narrow(batch), config)
            self.keys += made.samples.column("key").to_pylist()
            if self._other:
                made = made.add("encoded", pa.large_binary(), dict.fromkeys(made.pending, b"other bits"))
            write_part(made, root)


def mend(config: RunConfig, device: Device | None = None) -> list[Mending]:
    return sorted(repair(config, verify(config), device or Device(), print), key=lambda mending: mending.shard)


def files(config: RunConfig) -> dict[str, tuple[bytes, int]]:
    """Content of each committed file, and which one it is."""
    return {p.name: (p.read_bytes(), p.stat().st_ino) for p in Path(config.output).iterdir() if p.is_file()}


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def member(name: str, offset: int, header: bool = False) -> Damage:
    """Flips a bit of a member of the tar."""

    def damage(output: Path) -> None:
        with tarfile.open(output / "00001.tar") as tar:
            found = tar.getmember(name)
        flip(output / "00001.tar", (found.offset if header else found.offset_data) + offset)

    return damage


def cut(name: str, part: float) -> Damage:
    def damage(output: Path) -> None:
        data = (output / name).read_bytes()
        (output / name).write_bytes(data[: int(len(data) * part)])

    return damage


def without(name: str) -> Damage:
    return lambda output: (output / name).unlink()


def edited(**values: object) -> Damage:
    def damage(output: Path) -> None:
        path = output / "00001_stats.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return damage


#: All images of shard 1.
KEYS = ["000010000", "000010001", "000010002", "000010003"]


@pytest.mark.parametrize(
    ("damages", "mended", "made"),
    [
        ([member("000010001.png", 100)], ["00001.tar"], KEYS[1:2]),
        ([member("000010001.png", 100), member("000010003.png", 9)], ["00001.tar"], [KEYS[1], KEYS[3]]),
        ([member("000010001.png", 10, header=True)], ["00001.tar"], KEYS[1:2]),
        ([member("000010001.txt", 0), member("000010002.json", 5)], ["00001.tar"], []),
        ([member("000010001.txt", 10, header=True)], ["00001.tar"], []),
        ([cut("00001.tar", 0.4)], ["00001.tar"], KEYS[1:]),
        ([cut("00001.tar", 0)], ["00001.tar"], KEYS),
        ([without("00001.tar")], ["00001.tar"], KEYS),
        ([without("00001.parquet")], ["00001.parquet"], []),
        ([lambda output: flip(output / "00001.parquet", 300)], ["00001.parquet"], []),
        ([cut("00001.parquet", 0.5)], ["00001.parquet"], []),
        ([without("00001_stats.json")], ["00001_stats.json"], []),
        ([cut("00001_stats.json", 0.5)], ["00001_stats.json"], []),
        ([edited(failed=3, bytes=1)], ["00001_stats.json"], []),
        ([without("00001.parquet"), member("000010001.png", 100)], ["00001.parquet", "00001.tar"], KEYS[1:2]),
        ([without("00001.parquet"), without("00001.tar")], ["00001.parquet", "00001.tar"], KEYS),
        ([without("00001_stats.json"), member("000010001.png", 9)], ["00001.tar", "00001_stats.json"], KEYS[1:2]),
        ([without("00000.parquet"), without("00002.tar")], ["00000.parquet", "00002.tar"], ["000020000", "000020001"]),
    ],
)
def test_damage_is_mended_byte_for_byte(
    damages: list[Damage], mended: list[str], made: list[str], config: RunConfig
) -> None:
    right = files(config)
    for damage in damages:
        damage(Path(config.output))
    assert files(config) != right
    device = Device()
    mendings = mend(config, device)
    assert [name for mending in mendings for name in mending.mended] == mended
    assert device.keys == made
    after = files(config)
    assert {name: content for name, (content, _) in after.items()} == {n: content for n, (content, _) in right.items()}
    assert {name for name, (_, inode) in after.items() if inode == right[name][1]} >= right.keys() - set(mended)
    assert verify(config).right
    assert not (Path(config.output) / "_run" / "repair").exists()


def test_what_needs_no_device_is_mended_where_there_is_none(config: RunConfig) -> None:
    without("00000.tar")(Path(config.output))
    without("00002.parquet")(Path(config.output))

    def no_device(*_: object) -> None:
        raise UsageError("no device here")

    mended = repair(config, verify(config), no_device, print)
    assert next(mended).mended == ("00002.parquet",)
    with pytest.raises(UsageError, match="no device here"):
        next(mended)
    assert verify(config).damaged == [0]


def test_a_disk_that_does_not_give_a_part_is_read_past_it(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    right = files(config)
    output = Path(config.output)
    with tarfile.open(output / "00001.tar") as tar:
        rotten = tar.getmember("000010001.png").offset_data
    whole = storage.open_read

    class Rotten(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.name.endswith("00001.tar") and self.tell() <= rotten < self.tell() + (size or 0):
                raise OSError(errno.EIO, "Input/output error")
            return super().read(size) or b""

    @contextlib.contextmanager
    def open_read(url: str) -> Iterator[IO[bytes]]:
        with Rotten(url) if url.endswith("00001.tar") else whole(url) as file:
            yield file  # type: ignore[misc]

    monkeypatch.setattr(storage, "open_read", open_read)
    device = Device()
    assert verify(config).damaged == [1]
    (mending,) = mend(config, device)
    monkeypatch.undo()
    assert (mending.mended, device.keys) == (("00001.tar",), ["000010001"])
    assert {n: content for n, (content, _) in files(config).items()} == {
        n: content for n, (content, _) in right.items()
    }


def test_bits_that_this_device_cannot_make_are_told_and_nothing_is_touched(config: RunConfig) -> None:
    member("000010001.png", 100)(Path(config.output))
    damaged = files(config)
    (mending,) = mend(config, Device(other=True))
    assert mending.mended == ()
    assert mending.trouble is not None
    assert "this device makes other bits than the index says for 000010001; " in mending.trouble
    assert files(config) == damaged


def test_an_index_that_cannot_be_proved_is_left(config: RunConfig) -> None:
    # It agrees with its checksum, and not with the manifest.
    edit_index(config, 1, with_column("steps", lambda values: [7 for _ in values]))
    damaged = files(config)
    (mending,) = mend(config)
    assert mending.trouble is not None
    assert "00001.parquet, made again, cannot be proved to be what was there" in mending.trouble
    assert files(config) == damaged


def test_latents_are_made_again_with_their_images(tmp_path: Path) -> None:
    config = finished_run.make_config(tmp_path, dump_latents=True)
    finished_run.run(config)
    right = files(config)
    member("000010001.latent.npy", 3)(Path(config.output))
    device = Device()
    (mending,) = mend(config, device)
    assert (mending.mended, device.keys) == (("00001.tar",), KEYS)
    without("00001.parquet")(Path(config.output))
    assert [mending.mended for mending in mend(config, device)] == [("00001.parquet",)]
    assert device.keys == KEYS, "the tar is right"
    assert {n: content for n, (content, _) in files(config).items()} == {
        n: content for n, (content, _) in right.items()
    }


def test_rows_that_failed_are_known_by_the_index_or_made_again(tmp_path: Path) -> None:
    config = finished_run.make_config(tmp_path)
    planned = finished_run.run(config, broken=("r3",))
    shard = next(b.shard for b in batches_of(config, planned.windows) if "r3" in b.samples.column("id").to_pylist())
    right = files(config)
    without(f"{shard:05d}.tar")(Path(config.output))
    device = Device()
    (mending,) = mend(config, device)
    assert mending.mended == (f"{shard:05d}.tar",)
    assert {n: content for n, (content, _) in files(config).items()} == {
        n: content for n, (content, _) in right.items()
    }
    # Without the index nobody knows how it failed, and this time it does not.
    without(f"{shard:05d}.parquet")(Path(config.output))
    (mending,) = mend(config, device)
    assert mending.trouble is not None
    assert "cannot be proved" in mending.trouble


def test_what_nobody_planned_and_what_is_not_sealed_is_left_to_the_person(config: RunConfig) -> None:
    output = Path(config.output)
    (output / "00007.tar").write_bytes(b"foreign")
    (output / "_SUCCESS").unlink()
    (output / "00001_stats.json").unlink()
    (mending,) = mend(config)
    assert mending.trouble == "is not sealed, and the run has not ended; start the job again"
    assert (output / "00007.tar").read_bytes() == b"foreign"
    (output / "_SUCCESS").touch()
    (output / "00001.tar").unlink()
    (output / "00001.parquet").unlink()
    (mending,) = mend(config)
    assert mending.trouble == "nothing of it is left; start the job again, which makes it anew"


def test_another_manifest_mends_nothing(config: RunConfig, tmp_path: Path) -> None:
    other = finished_run.write_manifest(tmp_path / "other.parquet", finished_run.ROWS[:-1])
    with pytest.raises(UsageError, match="is not what the output was made of"):
        mend(config.model_copy(update={"manifest": (other,)}))
