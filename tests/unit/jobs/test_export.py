"""export.py as a person starts it: what it prints and returns."""

from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs import export
from manifests.errors import UsageError
from tests.unit.jobs.exporting.outputs import make_output

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Never written to."""
    return make_output(tmp_path_factory.mktemp("exported"))


def start(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "jobs" / "export.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_it_says_what_it_made_and_what_it_left_out(tmp_path: Path) -> None:
    output = make_output(tmp_path)
    asked = ("--output", output, "--to", str(tmp_path / "to"), "--layout", "webdataset", "--where", "rating < 3")
    ended = start(*asked)
    assert ended.returncode == 0, ended.stderr
    assert "8 images in 1 parts (1 now)" in ended.stdout
    assert "1 rows that the condition takes have no image and are left out" in ended.stdout
    assert "(all of them before)" in start(*asked).stdout
    (tmp_path / "out" / "_SUCCESS").unlink()
    assert "has not finished; only what it has committed is here" in start(*asked).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--layout", "folder", "--where", "nothing = 1"), "the index has no column 'nothing'"),
        (("--layout", "folder", "--where", "rating > 99"), "takes none of the 9 images"),
        (("--layout", "folder", "--limit", "0"), "option --limit: give a number of 1 or more; got 0"),
        (("--layout", "folder", "--resize", "-4"), "option --resize"),
        (("--layout", "folder", "--shuffle", "-1"), "option --shuffle: a seed is 0 or more"),
        (
            (
                "--layout",
                "huggingface",
            ),
            "option --license",
        ),
        (("--layout", "folder", "--license", "mit"), "option --license: goes with --layout huggingface only"),
        (("--layout", "folder", "--push", "me/cats"), "option --push: goes with --layout huggingface only"),
        (("--layout", "zip"), "invalid choice: 'zip'"),
    ],
)
def test_what_cannot_be_done_gets_a_sentence_and_nothing_is_written(
    output: str, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        export.main(["--output", output, "--to", str(tmp_path / "to"), *words])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "to").exists()


def test_a_mistake_is_exit_code_2(tmp_path: Path) -> None:
    ended = start("--output", str(tmp_path / "gone"), "--to", str(tmp_path / "to"), "--layout", "folder")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert "no run was begun there" in ended.stderr


def test_without_duckdb_only_conditions_are_missing(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def absent(name: str, *given: Any, **more: Any) -> Any:
        if name == "duckdb":
            raise ImportError(name)
        return real(name, *given, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    asked = ["--output", output, "--to", str(tmp_path / "to"), "--layout", "folder"]
    with pytest.raises(UsageError, match=r"needs DuckDB, which is not installed here: pip install '\.\[export\]'"):
        export.main([*asked, "--where", "rating > 1"])
    assert export.main(asked) == 0
    assert "9 images" in capsys.readouterr().out
