"""A job joins clusters with and without a token, whether this home has one or not; and says so where it cannot."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.engine.connection import free_port

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]
TOKEN, OTHER = "a" * 64, "b" * 64

JOIN = """
import ray
from jobs.engine import connection

connection.connect(print)

@ray.remote
class Adder:
    def add(self, a, b):
        return a + b

print(ray.get(Adder.remote().add.remote(1, 2), timeout=300))
"""


@contextmanager
def cluster(environment: dict[str, str], token: str) -> Iterator[str]:
    """A cluster's address; it wants the token, or none where that is empty."""
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    shell = {**environment, **own, "PYTHONPATH": str(ROOT)}
    del shell["RAY_ADDRESS"]
    size = ["--num-cpus=1", f"--object-store-memory={100 << 20}", "--include-dashboard=false", "--disable-usage-stats"]
    # None of those that Ray has for all clusters: where another one has the client server's, this one ends.
    size += [f"--{name}port=0" for name in ("", "dashboard-agent-listen-", "min-worker-", "max-worker-")]
    size += [f"--ray-client-server-port={free_port()}"]
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", *size]
    # It writes its address into its folder, where whoever has none would find it: not into everybody's.
    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,
        # In a session of its own: its node's processes end with it, and no other cluster does.
        subprocess.Popen(
            [*command, f"--temp-dir={folder}"], env=shell, start_new_session=True, stdout=subprocess.PIPE, text=True
        ) as head,
    ):
        try:
            assert head.stdout is not None
            addresses = (re.search(r"ray start --address='([^']+)'", line) for line in head.stdout)
            address = next((found[1] for found in addresses if found), None)
            assert address is not None
            yield address
        finally:
            os.killpg(head.pid, signal.SIGKILL)


def join(environment: dict[str, str], address: str, token: str, home: Path) -> subprocess.CompletedProcess[str]:
    """What becomes of a process whose home has the token, or none where that is empty."""
    if token:
        (home / ".ray").mkdir(exist_ok=True)
        (home / ".ray" / "auth_token").write_text(token)
    shell = {**environment, "RAY_ADDRESS": address, "HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-c", JOIN], cwd=ROOT, env=shell, capture_output=True, text=True, timeout=500
    )


@pytest.fixture(scope="module")
def with_token(clean_environment: dict[str, str]) -> Iterator[str]:
    """The address of a cluster that wants a token."""
    with cluster(clean_environment, TOKEN) as address:
        yield address


def assert_joined(ended: subprocess.CompletedProcess[str]) -> None:
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["3"]


def test_a_cluster_without_a_token_is_joined_where_the_home_has_one(
    clean_environment: dict[str, str], tmp_path: Path
) -> None:
    with cluster(clean_environment, "") as address:
        assert_joined(join(clean_environment, address, TOKEN, tmp_path))


def test_a_cluster_that_wants_a_token_is_joined_with_it(
    clean_environment: dict[str, str], with_token: str, tmp_path: Path
) -> None:
    assert_joined(join(clean_environment, with_token, TOKEN, tmp_path))


@pytest.mark.parametrize("kept", ["", OTHER], ids=["no token", "another token"])
def test_a_cluster_whose_token_is_not_here_is_named(
    clean_environment: dict[str, str], with_token: str, kept: str, tmp_path: Path
) -> None:
    ended = join(clean_environment, with_token, kept, tmp_path)
    assert ended.returncode == 1
    words = f"the Ray cluster at {with_token} wants a token"
    (said,) = [line for line in ended.stderr.splitlines() if words in line]
    assert "~/.ray/auth_token" in said
