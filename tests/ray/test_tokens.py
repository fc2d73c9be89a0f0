"""A job joins clusters with and without a token, whether this home has one or not; and says so where it cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ray.util import get_node_ip_address

from tests.cluster.test_submission import free_port

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

print(ray.get(Adder.remote().add.remote(1, 2), timeout=120))
"""


@contextmanager
def cluster(environment: dict[str, str], token: str) -> Iterator[str]:
    """A cluster's address; it wants the token, or none where that is empty."""
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    shell = {**environment, **own, "PYTHONPATH": str(ROOT)}
    del shell["RAY_ADDRESS"]
    port = free_port()
    size = ["--num-cpus=1", f"--object-store-memory={100 << 20}", "--include-dashboard=false", "--disable-usage-stats"]
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}", *size]
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
            assert any("Ray runtime started" in line for line in head.stdout)
            yield f"{get_node_ip_address()}:{port}"
        finally:
            os.killpg(head.pid, signal.SIGKILL)


def join(environment: dict[str, str], address: str, token: str, home: Path) -> subprocess.CompletedProcess[str]:
    """What becomes of a process whose home has the token, or none where that is empty."""
    if token:
        (home / ".ray").mkdir(exist_ok=True)
        (home / ".ray" / "auth_token").write_text(token)
    shell = {**environment, "RAY_ADDRESS": address, "HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-c", JOIN], cwd=ROOT, env=shell, capture_output=True, text=True, timeout=240
    )


@pytest.mark.parametrize(("wanted", "kept"), [("", TOKEN), (TOKEN, TOKEN)], ids=["cluster without", "cluster with"])
def test_a_cluster_is_joined_with_a_token_where_it_wants_one(
    clean_environment: dict[str, str], wanted: str, kept: str, tmp_path: Path
) -> None:
    with cluster(clean_environment, wanted) as address:
        ended = join(clean_environment, address, kept, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["3"]


@pytest.mark.parametrize("kept", ["", OTHER], ids=["no token", "another token"])
def test_a_cluster_whose_token_is_not_here_is_named(
    clean_environment: dict[str, str], kept: str, tmp_path: Path
) -> None:
    with cluster(clean_environment, TOKEN) as address:
        ended = join(clean_environment, address, kept, tmp_path)
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert f"the Ray cluster at {address} wants a token" in last
    assert "~/.ray/auth_token" in last
