"""What a job cannot start with: one sentence that names the cause and what to do, the right exit code, within seconds.

The job is the real one up to there.
"""

from __future__ import annotations

import http.server
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.engine.connection import free_port
from tests.environments.conftest import POWERLESS, RUN_LIMIT_S, OddJob, is_root

#: Seconds from the word "planning" to the refusal. Before it Python imports what it needs, however busy it is.
#: Some ten at most, where nothing else runs; Ray by itself takes two minutes to give up a cluster that is gone.
SOON_S = 45


def refused(job: OddJob, folder: Path, before: tuple[str, ...] = (), **environment: str | None) -> tuple[int, str]:
    """How the job ended, and the one sentence."""
    lines, times = [], []
    with job.start(folder / "out", folder, before, **environment) as process:
        hanging = threading.Timer(RUN_LIMIT_S, process.kill)
        hanging.start()
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line.rstrip())
            times.append(time.monotonic())
        hanging.cancel()
    *run, last = lines
    assert last.startswith("error: ")
    # Nothing but the run's own lines stands before it.
    assert [line for line in run if not re.match(r"\[[\dhms ]+\] ", line)] == []
    assert times[-1] - next(at for at, line in zip(times, lines, strict=True) if "planning" in line) < SOON_S
    assert not (folder / "out" / "_SUCCESS").exists()
    return process.returncode, last


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:8265", "is the address of a dashboard"),
        ("ray://127.0.0.1:10001", "Ray Client"),
        ("nonsense", "is no address of a Ray cluster; give host:port"),
    ],
)
def test_an_address_of_another_kind_is_told_with_the_right_one(
    address: str, words: str, odd_job: OddJob, tmp_path: Path
) -> None:
    code, said = refused(odd_job, tmp_path, RAY_ADDRESS=address)
    assert code == 2
    assert f"RAY_ADDRESS={address}" in said
    assert words in said


def test_a_cluster_that_is_gone_is_told_within_seconds(odd_job: OddJob, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    code, said = refused(odd_job, tmp_path, RAY_ADDRESS=address)
    # Not a mistake of usage: the same command works when the cluster is back.
    assert code == 1
    assert "no Ray cluster answers" in said
    assert "unset RAY_ADDRESS" in said


@pytest.fixture
def web_server() -> Iterator[int]:
    server = http.server.HTTPServer(("0.0.0.0", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_what_answers_there_and_is_no_ray_is_told_within_seconds(
    web_server: int, odd_job: OddJob, tmp_path: Path
) -> None:
    code, said = refused(odd_job, tmp_path, RAY_ADDRESS=f"127.0.0.1:{web_server}")
    assert code == 1
    assert "no Ray cluster answers" in said


def test_a_long_temporary_folder_is_refused_with_the_variable_that_helps(odd_job: OddJob, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    code, said = refused(odd_job, tmp_path, TMPDIR=str(long), RAY_TMPDIR=None)
    assert code == 2
    assert f"sockets in {long}/ray" in said
    assert "set RAY_TMPDIR to a short folder" in said


def test_a_temporary_folder_of_somebody_else_is_refused_with_the_variable_that_helps(
    odd_job: OddJob, tmp_path: Path, not_mine: Path
) -> None:
    code, said = refused(odd_job, tmp_path, POWERLESS if is_root else (), RAY_TMPDIR=str(not_mine))
    assert code == 2
    assert f"Ray cannot keep its files in {not_mine}/ray: Permission denied; set RAY_TMPDIR" in said


def test_a_relative_path_from_a_folder_that_is_gone_is_told(odd_job: OddJob, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    start = ("sh", "-c", f'rmdir {gone} && exec "$@"', "sh")
    ended = odd_job.run("out", gone, start)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("error: out is a relative path, and the folder that this was")
