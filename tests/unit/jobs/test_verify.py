"""The script prints what verification found, and exits with its verdict."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from jobs.verification.findings import Finding, Verdict
from jobs.verify import main, show
from manifests.errors import UsageError
from tests.unit import finished_run
from tests.unit.jobs.started import Start

ROOT = Path(__file__).resolve().parents[3]


def test_many_findings_are_counted_and_the_first_shown() -> None:
    sink = io.StringIO()
    show(Verdict([Finding("tar", f"{i:05d}.tar", "is missing") for i in range(100)]), Console(file=sink, width=200))
    assert "100 wrong" in sink.getvalue()
    assert "and 70 more" in sink.getvalue()


@pytest.mark.parametrize("words", ["0/2", "3/2", "2", "a/b", "1/0"])
def test_a_part_that_is_none_is_refused(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["verify.py", "--manifest", "m", "--output", "o", "--scrub", words])
    with pytest.raises(UsageError, match="option --scrub: should be N/M"):
        main()


def test_the_script_exits_with_the_verdict(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_run.run(finished_run.make_config(tmp_path))
    monkeypatch.chdir(tmp_path)
    options = ("--manifest", "m.parquet", "--output", "out")
    script = [sys.executable, str(ROOT / "jobs" / "verify.py"), *options]
    assert subprocess.run(script, capture_output=True).returncode == 0
    index = (tmp_path / "out" / "00000.parquet").read_bytes()
    (tmp_path / "out" / "00000.parquet").unlink()
    ended = start(main, *options, "--scrub", "1/2")
    assert ended.returncode == 1
    assert "index: 00000.parquet: is missing" in ended.stdout
    ended = start(main, *options, "--repair")
    assert ended.returncode == 0, ended.stderr
    before, after = ended.stdout.split("shard 00000: mended: 00000.parquet\n")
    assert "NOT right" in before
    assert "all of it is right" in after
    assert (tmp_path / "out" / "00000.parquet").read_bytes() == index
    assert start(main, "--manifest", "m.parquet").returncode == 2
    assert "--manifest" in start(main, "--help").stdout
