"""Single images out of a tar by ranges: always the right bytes, in few reads, and damage is told."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from jobs.output.tar_members import TarMembers
from manifests import storage
from manifests.errors import StorageError

KEYS = [f"{key:09d}" for key in range(600)]


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """Images from nothing to a hundred times the usual size; some hold what looks like a header."""
    rng = np.random.default_rng(0)
    sizes = (rng.pareto(1.5, len(KEYS)) * 3000).astype(int).clip(0, 400_000)
    found = {key: rng.bytes(int(size)) for key, size in zip(KEYS, sizes, strict=True)}
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("other.png", "000000900.png"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    for key in KEYS[::50]:
        found[key] = inner.getvalue() + b"ustar" * 2000
    return found


@pytest.fixture(scope="module")
def tar(contents: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tar") / "00000.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, content in contents.items():
            for ending, data in ((".png", content), (".txt", b"words"), (".json", b"{}" * 300), (".latent.npy", b"")):
                member = tarfile.TarInfo(key + ending)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def opened(tar: Path) -> TarMembers:
    return TarMembers(str(tar), tar.stat().st_size, KEYS, ".png")


def test_every_image_is_found_in_whatever_order(tar: Path, contents: dict[str, bytes]) -> None:
    for seed in range(3):
        members = opened(tar)
        for key in np.random.default_rng(seed).permutation(KEYS):
            assert members.read(str(key)) == contents[str(key)]
    for key in KEYS:
        assert opened(tar).read(key) == contents[key]


def test_one_image_is_a_few_reads_and_each_one_behind_it_one_or_two(
    tar: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, ranges = storage.read_range, []

    def counted(url: str, start: int, stop: int) -> bytes:
        ranges.append(stop - start)
        return read(url, start, stop)

    monkeypatch.setattr(storage, "read_range", counted)
    reads = []
    for key in KEYS[7::29]:
        ranges.clear()
        opened(tar).read(key)
        reads.append(len(ranges))
        assert sum(ranges) < tar.stat().st_size
    assert np.median(reads) <= 20
    members = opened(tar)
    members.read(KEYS[300])
    ranges.clear()
    for key in KEYS[301:361]:
        assert members.read(key) == contents[key]
    assert len(ranges) <= 2 * 60


def test_damage_and_what_is_not_there_are_told(tar: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="has no image of 12"):
        opened(tar).read("12")
    damaged = tmp_path / "00000.tar"
    damaged.write_bytes(tar.read_bytes()[: 1 << 16])
    members = TarMembers(str(damaged), tar.stat().st_size, KEYS, ".png")
    with pytest.raises(StorageError, match=r"00000\.tar is damaged"):
        members.read(KEYS[-1])
    damaged.unlink()
    with pytest.raises(StorageError, match=r"00000\.tar is not there"):
        TarMembers(str(damaged), 1 << 16, KEYS, ".png").read(KEYS[5])
