"""Writing only where there is no file: one of many is first, and storage that cannot promise it is found out."""

from __future__ import annotations

import errno
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from manifests import storage
from manifests.errors import StorageError
from tests.s3_server import S3Server


@pytest.fixture(params=["disk", "no links", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "s3":
        request.getfixturevalue("s3")
        return "s3://bucket/a"
    if request.param == "no links":

        def refuse(source: Any, target: Any) -> None:
            raise OSError(errno.EPERM, "no hard links here")

        monkeypatch.setattr(os, "link", refuse)
    return f"memory://{uuid.uuid4().hex}" if request.param == "memory" else str(tmp_path / "a")


def test_one_of_many_is_first_and_its_file_stays(folder: str) -> None:
    assert storage.is_exclusive(folder)
    url = storage.join(folder, "one")
    contents = [str(number).encode() for number in range(8)]
    # One after the other in memory, whose package knows no threads.
    with ThreadPoolExecutor(1 if folder.startswith("memory") else 8) as pool:
        first = list(pool.map(lambda data: storage.create(url, data), contents))
    assert sum(first) == 1
    assert storage.read_bytes(url) == contents[first.index(True)]
    assert storage.list_names(folder) == ["one"]
    if not storage.is_remote(folder):
        assert os.listdir(folder) == ["one"]


def test_an_answer_that_was_lost_on_the_way_is_known_again(s3: S3Server) -> None:
    assert storage.create("s3://bucket/a", b"mine")
    assert storage.create("s3://bucket/a", b"mine"), "the client has asked twice, because it heard nothing"
    assert not storage.create("s3://bucket/a", b"another's")


def test_a_store_that_drops_the_condition_is_found_out(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    client = fsspec.filesystem("s3")
    put = client.pipe_file
    monkeypatch.setattr(client, "pipe_file", lambda path, data, mode="overwrite": put(path, data))
    assert not storage.is_exclusive("s3://bucket/a")
    assert storage.list_names("s3://bucket/a") == []


def test_a_package_that_knows_no_condition_is_found_out(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    client = fsspec.filesystem("s3")
    put = client.pipe_file
    monkeypatch.setattr(client, "pipe_file", lambda path, data: put(path, data))
    assert not storage.is_exclusive("s3://bucket/a")


def test_a_disk_that_refuses_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write .*inside"):
        storage.create(str(tmp_path / "file" / "inside"), b"")
