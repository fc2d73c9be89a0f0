"""Ray's address and folders, as a machine has them, before Ray meets them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest
import ray

from jobs.engine import connection
from manifests.errors import KandinskyBatchError, UsageError


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What connecting sets ends with the test."""
    for name in ("PYTHONPATH", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_BACKEND_LOG_LEVEL"):
        monkeypatch.setenv(name, "")


def refused(address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UsageError) as caught:
        connection.connect(print)
    return str(caught.value)


@pytest.mark.parametrize("address", ["head", "head:", "head:ray", "head:0", "head:99999", ":6379:1", "ssh://head:22"])
def test_what_is_no_address_is_refused_before_anything_waits(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(address, monkeypatch).startswith(f"RAY_ADDRESS={address} ")


@pytest.mark.parametrize("room", [0, 1])
def test_a_temporary_folder_may_be_as_long_as_rays_sockets_allow(
    room: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    longest = connection.SOCKET_BYTES - len(f"/ray/{connection.SOCKET_BELOW}")
    folder = "/tmp/" + "x" * (longest - len("/tmp/") + 1 - room)
    monkeypatch.setenv("RAY_TMPDIR", folder)
    try:
        if room:
            connection.check_temporary_folder()
        else:
            with pytest.raises(UsageError, match=r"108 bytes, and Unix takes 107; set RAY_TMPDIR"):
                connection.check_temporary_folder()
    finally:
        if os.path.isdir(folder):
            os.rmdir(f"{folder}/ray")
            os.rmdir(folder)


def init_raises(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: object) -> NoReturn:
        os.write(2, b"what Ray writes itself\n")
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("RAY_ADDRESS", "local")


def test_another_version_of_ray_is_one_sentence_with_both(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.40.0\n    Python: 3.11.7\n"
        "This process on node 10.0.0.1 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    )
    init_raises(RuntimeError(text), monkeypatch)
    with pytest.raises(UsageError) as caught:
        connection.connect(print)
    said = str(caught.value)
    assert "\n" not in said
    assert "Ray: 2.40.0" in said
    assert "Ray: 2.60.0" in said
    assert said.endswith("use the same Ray and the same Python on both sides")
    assert capfd.readouterr().err == ""


def test_whatever_else_ray_says_is_one_sentence_and_the_rest_is_in_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(connection.tempfile, "tempdir", str(tmp_path))
    init_raises(ValueError("something\nnobody has seen"), monkeypatch)
    with pytest.raises(KandinskyBatchError, match="Ray does not start on this machine: something nobody has seen"):
        connection.connect(print)
    (log,) = tmp_path.glob("kandinsky-batch-ray-*.log")
    assert log.read_text().startswith("what Ray writes itself\nTraceback")


def test_a_home_that_takes_no_token_gets_one_that_ends_with_the_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    connection._bring_token()
    assert os.environ["RAY_AUTH_TOKEN"] == ""
    monkeypatch.setenv("HOME", "/proc/nowhere")
    connection._bring_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
