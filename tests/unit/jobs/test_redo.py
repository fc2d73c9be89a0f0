"""The script that makes one image again: what it refuses before any model is loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jobs import redo
from jobs.cli import run_script
from tests.unit import finished_run


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished output; the last but one of its requests failed validation."""
    config = finished_run.make_config(tmp_path_factory.mktemp("redo"))
    finished_run.run(config)
    return config.output


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--key", "nothing"], "--key nothing: is not a key"),
        (["--key", "000000003", "--set", "stps=3"], "did you mean 'steps'?"),
        (["--key", "000000003", "--set", "steps=many"], "--set: steps: 'many' is not a whole number"),
        (["--key", "000000000", "--to", "{here}/there.png"], "there is such a file; --overwrite replaces it"),
        (["--key", "000000000", "--checkpoint", "{here}"], "--checkpoint {here}"),
        (["--key", "{wrong}"], "the run made no image of it (failed_to_validate: width: 65 is not a multiple of 64"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_exit_code_2(
    output: str,
    words: list[str],
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "there.png").write_bytes(b"mine")
    places = {"here": str(tmp_path), "wrong": "000000004"}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["redo.py", "--output", output, *(word.format(**places) for word in words)])
    with pytest.raises(SystemExit) as ended:
        run_script(redo.main)
    error = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2, error
    assert error.startswith("error: ")
    assert why.format(**places) in error
    assert [path.name for path in tmp_path.iterdir()] == ["there.png"]
