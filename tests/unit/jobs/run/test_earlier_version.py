"""An output that an earlier version has finished: it verifies, and starting the job again finds nothing to do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
SETTINGS = ("--checkpoint", "demo", "--height", "64", "--width", "64", "--steps", "4", "--prior-steps", "2")
PLAN = (*SETTINGS, "--strength", "0.6", "--batch-size", "2", "--shard-size", "4")


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A copy, with manifest and images beside the output."""
    return Path(shutil.copytree(ROOT / "tests" / "data" / "output_0_1", tmp_path / "earlier"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def start(script: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    places = ("--manifest", str(folder / "requests.parquet"), "--output", str(folder / "output"))
    command = [sys.executable, str(ROOT / "jobs" / script), *places, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_it_verifies(earlier: Path) -> None:
    ended = start("verify.py", earlier)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "6 images written, 2 failed, 4 shards: all of it is right" in ended.stdout


def test_damage_in_it_is_still_found(earlier: Path) -> None:
    tar = earlier / "output" / "00002.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    ended = start("verify.py", earlier)
    assert ended.returncode == 1
    assert "00002.tar" in ended.stdout


def test_starting_it_again_finds_nothing_to_do_and_changes_no_shard(earlier: Path) -> None:
    before = contents(earlier / "output")
    ended = start("generate.py", earlier, *PLAN)
    assert ended.returncode == 3, ended.stdout + ended.stderr
    assert "6 images written, 2 failed (all of them before)" in ended.stdout
    assert contents(earlier / "output") == before


def test_another_setting_is_still_told_apart(earlier: Path) -> None:
    ended = start("generate.py", earlier, *PLAN, "--steps", "5")
    assert ended.returncode == 2
    assert "--steps was 4 and is 5" in ended.stderr


def test_marks_are_not_put_into_some_of_its_images(earlier: Path) -> None:
    ended = start("generate.py", earlier, *PLAN, "--mark")
    assert ended.returncode == 2
    assert "--mark was False and is True" in ended.stderr
