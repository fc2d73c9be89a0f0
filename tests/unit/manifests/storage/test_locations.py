"""Locations: joined, resolved and told apart, local paths and anything with a protocol alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests import storage


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
