"""Locations: joined, resolved and told apart, local paths and anything with a protocol alike."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from manifests import storage
from manifests.errors import UsageError


@pytest.mark.parametrize(
    ("location", "base", "expected"),
    [
        ("a.png", "/data/in", "/data/in/a.png"),
        ("../a.png", "/data/in", "/data/a.png"),
        ("/abs/a.png", "/data/in", "/abs/a.png"),
        ("s3://b/a.png", "/data/in", "s3://b/a.png"),
        ("x/a.png", "s3://bucket/in", "s3://bucket/in/x/a.png"),
        ("../a.png", "s3://bucket/in", "s3://bucket/a.png"),
        ("a.png", "memory://", "memory://a.png"),
        ("zip://a.png::s3://b/c.zip", "/data", "zip://a.png::s3://b/c.zip"),
    ],
)
def test_relative_locations_are_meant_from_their_base(location: str, base: str, expected: str) -> None:
    assert storage.resolve(location, base) == expected


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("/a", "b", "c"), "/a/b/c"),
        (("/a/", "b"), "/a/b"),
        (("/", "b"), "/b"),
        (("memory://", "b"), "memory://b"),
        (("s3://bucket", "_run/parts"), "s3://bucket/_run/parts"),
    ],
)
def test_joining_keeps_every_slash_that_matters(parts: tuple[str, ...], expected: str) -> None:
    assert storage.join(*parts) == expected


def test_folders_and_kinds_of_locations() -> None:
    assert storage.folder_of("/data/m.parquet") == "/data"
    assert storage.folder_of("s3://bucket/in/m.parquet") == "s3://bucket/in"
    assert storage.is_remote("s3://bucket/x")
    assert storage.is_remote("memory://x")
    assert not storage.is_remote("/x")
    assert not storage.is_remote("file:///x")
    assert storage.absolute("x") == str(Path("x").absolute())
    assert storage.absolute("s3://x/y") == "s3://x/y"


@pytest.mark.parametrize("name", ["a::b.parquet", "zip::x", "a::b/c d%20#é.png"])
def test_a_local_name_is_taken_as_it_is(name: str, tmp_path: Path) -> None:
    for location in (f"{tmp_path}/{name}", f"file://{tmp_path}/{name}"):
        storage.write_atomic(location, b"x")
        assert storage.local_path(location) == f"{tmp_path}/{name}"
        assert storage.find(location, (".parquet",)).files == (f"{tmp_path}/{name}",)
        assert storage.read_bytes(location) == b"x"


def test_a_relative_path_needs_the_folder_that_it_counts_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UsageError, match=r"^a.parquet is a relative path, and the folder .* is gone"):
        storage.local_path("a.parquet")
    assert storage.local_path("/a.parquet") == "/a.parquet"


def test_a_file_name_that_is_no_text_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode("caf\xe9.parquet".encode("latin-1"))).write_bytes(b"x")
    for location in (str(tmp_path), f"{tmp_path}/*.parquet"):
        with pytest.raises(UsageError, match=r"caf\\xe9.parquet' is not UTF-8; rename it"):
            storage.find(location, (".parquet",))
