"""A run whose places change under it: the output's link is pointed elsewhere, the folder for temporary files fills up.

It works, or ends with one sentence and 1; and nothing is lost, whatever it was.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.faults.conftest import RUN_LIMIT_S, QuickJob, shard_files, wait_for

pytestmark = pytest.mark.faults

#: Where a file system of its own lies over: its path is short, as Ray's sockets need it.
TEMPORARY = Path("/var/tmp")

#: Runs a command whose temporary files lie on a small disk of their own, which fills up as soon as a file is there, and
#: with whatever room is made on it later.
CONFINED = [
    *("unshare", "--map-root-user", "--mount", "sh", "-c"),
    'mount -t tmpfs -o size=64m tmpfs "$0" && full="$1" && shift && '
    '{ (until [ -e "$full" ]; do sleep 0.05; done; '
    'while :; do cat /dev/zero >> "$0/filler"; touch "$full.now"; sleep 0.05; done) 2> /dev/null & } && '
    '"$@"; ended=$?; kill $! 2> /dev/null; exit $ended',
]


def point(link: Path, folder: Path) -> None:
    """The link leads to the folder from now on, and at no moment to nowhere."""
    folder.mkdir(exist_ok=True)
    new = link.with_name("new")
    new.symlink_to(folder)
    new.rename(link)


@pytest.mark.nightly
def test_a_link_that_is_pointed_elsewhere_ends_the_run_and_each_place_goes_on_by_itself(
    quick_job: QuickJob, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    here, there, link = tmp_path / "here", tmp_path / "there", tmp_path / "link"
    point(link, here)
    go_on = tmp_path / "go_on"
    process = quick_job.with_environment(QUICK_GO_ON=str(go_on)).start(link)
    wait_for(lambda: any(here.glob("_run/parts/*/*.arrow")), process)
    point(link, there)
    go_on.touch()
    _, said = process.communicate(timeout=RUN_LIMIT_S)
    assert process.returncode == 1, said
    last = said.splitlines()[-1]
    assert f"{link} is not the folder any more that this job has begun to write to" in last
    assert "Traceback" not in said
    assert not [path for path in there.rglob("*") if path.is_file()], "nothing was written there"
    for folder, words in ((there, "planning"), (here, "going on from")):
        point(link, folder)
        again = quick_job.run(link)
        assert again.returncode == 0, again.stderr
        assert words in again.stderr
        assert quick_job.wrong(link) == []
        assert shard_files(folder) == undisturbed


@pytest.mark.nightly
def test_a_folder_for_temporary_files_that_fills_up_is_named_and_with_room_the_run_goes_on(
    quick_job: QuickJob, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    confined = [*CONFINED, str(TEMPORARY), str(tmp_path / "full")]
    if shutil.which("unshare") is None or subprocess.run([*confined, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody make a mount namespace")
    output, go_on = tmp_path / "out", tmp_path / "go_on"
    # A Ray of its own, whose workers live on that disk as well.
    job = quick_job.with_environment(TMPDIR=str(TEMPORARY), RAY_ADDRESS="local", QUICK_GO_ON=str(go_on))
    with subprocess.Popen(
        [*confined, *job.command(output)], env=job.environment, cwd=job.folder, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(lambda: any(output.glob("_run/parts/*/*.arrow")), process)
        (tmp_path / "full").touch()
        wait_for((tmp_path / "full.now").exists, process)
        go_on.touch()
        _, said = process.communicate(timeout=RUN_LIMIT_S)
    # Processes that had started by then may have been enough.
    assert process.returncode in (0, 1), said
    assert "Traceback" not in said, said
    if process.returncode:
        last = said.splitlines()[-1]
        assert "No space left on device" in last, said
        assert str(TEMPORARY) in last, said
        assert "the same command goes on from here" in last
    again = quick_job.run(output)
    assert again.returncode == 0, again.stderr
    assert quick_job.wrong(output) == []
    assert shard_files(output) == undisturbed
