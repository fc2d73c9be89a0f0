"""`status.py`: the display, plain lines and JSON of a run, its exit codes, and watching until the end."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from jobs import status
from jobs.run.watching import Watcher
from manifests.errors import IncompleteRunError, UsageError
from tests.unit.jobs.monitoring.sample_facts import begun_status

WHOLE = (0, 1)


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["status.py", *words])
    return status.main()


def ended(output: Path, share: tuple[int, int] = WHOLE, error: Exception | None = None) -> str:
    """An output whose job has ended so."""
    try:
        with begun_status(str(output), share, print):
            if error is not None:
                raise error
    except IncompleteRunError:
        pass
    return str(output)


def test_a_run_that_is_done_is_shown_and_the_code_is_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ended(tmp_path / "out")
    assert run(monkeypatch, "--output", output) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "done"
    assert shown[-1] == output
    assert "6 of 14 shards sealed" in shown
    assert any(line.startswith("newest failure: row 132 (cat-132)") for line in shown)


def test_a_run_that_ended_early_gives_1_and_no_run_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = ended(tmp_path / "out", error=IncompleteRunError("disk full"))
    assert run(monkeypatch, "--output", output) == 1
    with pytest.raises(UsageError):
        run(monkeypatch, "--output", str(tmp_path / "nothing"))


def test_json_has_state_shares_and_facts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ended(tmp_path / "out", (0, 2))
    ended(tmp_path / "out", (1, 2), IncompleteRunError("disk full"))
    assert run(monkeypatch, "--output", output, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["state"] == "ended early"
    assert [share["words"] for share in found["shares"]] == ["done", "ended early: disk full"]
    assert found["facts"]["sealed"] == 12


def test_watching_ends_with_the_run_and_every_look_is_a_line_of_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ended(tmp_path / "out")
    monkeypatch.setattr(status, "LOOK_S", 0.0)
    done = Watcher(output).look()
    looked = iter([done.model_copy(update={"state": "running"})] * 2 + [done])
    monkeypatch.setattr(Watcher, "look", lambda watcher: next(looked))
    assert run(monkeypatch, "--output", output, "--watch", "--json") == 0
    assert [json.loads(line)["state"] for line in capsys.readouterr().out.splitlines()] == ["running"] * 2 + ["done"]


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal_it_is_the_display_of_the_run_with_where_each_share_runs(tmp_path: Path, width: int) -> None:
    output = ended(tmp_path / "out", (0, 2))
    ended(tmp_path / "out", (1, 2), IncompleteRunError("disk full"))
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=40, color_system=None)
    console.print(status.screen(Watcher(output).look()), end="")
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "2 shares: 1 ended early, 1 done" in lines[0]
    text = " ".join(" ".join(line.strip("│ ") for line in lines).split())
    assert "share 1/2 done (making images 6223/12853 images" in text.replace(" (1 loading)", "")
    assert "share 2/2 ended early: disk full" in text
    assert {len(line) for line in lines} == {width}
