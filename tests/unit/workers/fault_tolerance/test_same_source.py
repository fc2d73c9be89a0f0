"""Which source a process imports, and what is told where it is another than the script's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from workers.fault_tolerance import same_source

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    def copy() -> Path:
        folder = tmp_path_factory.mktemp("checkout")
        for package in same_source.PACKAGES:
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "*.md"))
        return folder

    return copy


def source_of(*path: Path) -> tuple[str, str]:
    """What a process with this path says, which has the module by its text."""
    code = Path(same_source.__file__).read_text()
    ask = f"import sys, json; sys.path[:0] = {[str(entry) for entry in path]}\n"
    script = f"{code}\n{ask}print(json.dumps(find_source()))".replace("from __future__ import annotations\n", "")
    said = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    folder, digest = json.loads(said.stdout)
    return folder, digest


def test_the_same_files_elsewhere_are_the_same_source(checkout: Callable[[], Path]) -> None:
    ours, theirs = same_source.find_source(), source_of(checkout())
    assert ours[0] == str(ROOT)
    assert theirs[0] != ours[0]
    assert same_source.difference("node 1", theirs, ours) is None


def test_another_version_is_told_with_both_folders(checkout: Callable[[], Path]) -> None:
    folder = checkout()
    with open(folder / "workers" / "stages" / "encode.py", "a") as module:
        module.write("# changed\n")
    ours, theirs = same_source.find_source(), source_of(folder)
    said = same_source.difference("node 10.0.0.2", theirs, ours)
    assert said is not None
    assert said.startswith("node 10.0.0.2 would run other code than this script")
    assert str(folder) in said
    assert str(ROOT) in said


def test_somebody_elses_package_in_front_is_another_source(checkout: Callable[[], Path], tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "__init__.py").touch()
    folder = checkout()
    theirs = source_of(tmp_path, folder)
    assert theirs[0] == f"{folder} and {tmp_path}"
    assert same_source.difference("node 1", theirs, same_source.find_source()) is not None


def test_a_node_without_the_packages_is_told_how_to_get_them() -> None:
    said = same_source.difference("node 1", source_of(), same_source.find_source())
    assert said is not None
    assert "cannot import this project's packages; install them there" in said


def test_files_that_have_changed_since_are_told_as_that() -> None:
    said = same_source.difference("the CPU of here", ("/a", "1"), ("/a", "2"))
    assert (
        said == "the CPU of here imports other files from /a than the script did: they have changed since; start again"
    )
