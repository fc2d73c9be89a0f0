"""Two components are one where all their files are, whatever they and their folders are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.checkpoints.same_files import same_files


def write(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return write(tmp_path / "one", config="{}", weights="abcd", deeper__vocab="x")


@pytest.mark.parametrize(
    ("files", "same"),
    [
        ({}, True),
        ({"weights": "abce"}, False),
        ({"weights": "abcde"}, False),
        ({"more": ""}, False),
        ({".fetched": "today"}, True),
    ],
)
def test_every_byte_counts(one: Path, tmp_path: Path, files: dict[str, str], same: bool) -> None:
    other = write(tmp_path / "other", **{"config": "{}", "weights": "abcd", "deeper__vocab": "x", **files})
    assert same_files(one, other) is same
    assert same_files(other, one) is same


def test_links_to_the_same_files_are_the_same(one: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(one)
    assert same_files(one, tmp_path / "link")


def test_nothing_is_like_nothing_else(one: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert not same_files(tmp_path / "empty", tmp_path / "empty")
    assert not same_files(tmp_path / "missing", one)
