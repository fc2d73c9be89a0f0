"""What a machine may be like and the job runs all the same; many oddities at once, because each is harmless alone."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from jobs.engine.connection import free_port
from tests.environments.conftest import POWERLESS, ROWS, RUN_LIMIT_S, OddJob, is_root
from tests.nodes import ray_nodes

pytestmark = pytest.mark.ray

DEAD_PROXY = "http://127.0.0.1:9"
SMALL_SHARED_MEMORY = "mount -t tmpfs -o size=64m tmpfs /dev/shm"


@dataclass(frozen=True)
class Ended:
    """How a job ended, and what it left."""

    code: int
    stdout: str
    stderr: str
    output: Path


def may_mount() -> bool:
    """True where this user may have a /dev/shm of its own."""
    return subprocess.run(["unshare", "-m", "sh", "-c", SMALL_SHARED_MEMORY], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def alone(
    odd_job: OddJob, foreign_packages: Path, short_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ended]:
    """A job with a Ray of its own, in a shell where much is odd."""
    folder = tmp_path_factory.mktemp("alone")
    output = folder / "größe::2"
    home = folder / "home"
    home.mkdir(mode=0o555)
    if is_root:
        os.chown(home, 65534, 65534)
    # The address that a cluster has left which was killed.
    stale = short_folder / "ray" / "ray_current_cluster"
    stale.parent.mkdir()
    stale.write_text(f"127.0.0.1:{free_port()}")
    words = ["sh", "-c", f'{SMALL_SHARED_MEMORY} 2>/dev/null; ulimit -n 256; exec "$@" <&-', "sh"]
    before = [*(["unshare", "-m"] if may_mount() else []), *words, *(POWERLESS if is_root else ())]
    ended = odd_job.run(
        output,
        foreign_packages,
        before,
        RAY_ADDRESS=None,
        RAY_TMPDIR=str(short_folder),
        HOME=str(home),
        LC_ALL="C",
        PYTHONIOENCODING="ascii",
        http_proxy=DEAD_PROXY,
        https_proxy=DEAD_PROXY,
        HTTP_PROXY=DEAD_PROXY,
        HTTPS_PROXY=DEAD_PROXY,
        no_proxy=None,
        NO_PROXY=None,
    )
    yield Ended(ended.returncode, ended.stdout, ended.stderr, output)
    home.chmod(0o700)


def test_it_runs_where_much_is_odd(alone: Ended) -> None:
    """Home not writable, C locale, ASCII, no stdin, 256 files, dead proxies, `::` in a path, somebody's packages."""
    assert alone.code == 0, alone.stderr
    assert (alone.output / "_SUCCESS").exists()
    assert f"{len(ROWS)} images written, 0 failed" in alone.stdout


def test_words_that_the_terminal_has_no_letters_for_are_escaped(alone: Ended) -> None:
    assert "gr\\xf6\\xdfe::2" in alone.stdout


def test_an_address_that_a_dead_cluster_left_is_told_and_passed_over(alone: Ended) -> None:
    assert "does not answer; starting another one" in alone.stderr


@pytest.mark.skipif(not may_mount(), reason="only root may make /dev/shm small for a test")
def test_small_shared_memory_is_enough(alone: Ended) -> None:
    assert alone.code == 0, alone.stderr


@pytest.fixture(scope="module")
def foreign_cluster(clean_environment: dict[str, str], foreign_packages: Path) -> Iterator[Cluster]:
    """A cluster that was there before, whose nodes have somebody else's packages on their path."""
    size = {"num_cpus": 4, "object_store_memory": 200 << 20}
    with ray_nodes(clean_environment, size, path=foreign_packages) as cluster:
        yield cluster


def test_it_runs_unheard_in_a_cluster_that_would_import_something_else_from_a_folder_that_is_gone(
    foreign_cluster: Cluster, odd_job: OddJob, tmp_path: Path
) -> None:
    """`… 2>&1 | head -1`: the reader leaves after the first line."""
    gone, output, code = tmp_path / "gone", tmp_path / "out", tmp_path / "code"
    gone.mkdir()
    line = f"rmdir {gone}; ({shlex.join(odd_job.command(output))}; echo $? >{code}) 2>&1 | head -1"
    heard = subprocess.run(
        ["sh", "-c", line],
        cwd=gone,
        env={**odd_job.environment, "RAY_ADDRESS": foreign_cluster.address},
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
    )
    assert re.fullmatch(r"\[[\dhms ]+\] loading\n", heard.stdout)
    assert code.read_text() == "0\n"
    assert (output / "_SUCCESS").exists()
