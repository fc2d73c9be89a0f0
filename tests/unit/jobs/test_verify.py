"""The script prints what verification found, and exits with its verdict."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from jobs.verification.findings import Finding, Verdict
from jobs.verify import show
from tests.unit import finished_run

ROOT = Path(__file__).resolve().parents[3]


def test_many_findings_are_counted_and_the_first_shown() -> None:
    sink = io.StringIO()
    show(Verdict([Finding("tar", f"{i:05d}.tar", "is missing") for i in range(100)]), Console(file=sink, width=200))
    assert "100 wrong" in sink.getvalue()
    assert "and 70 more" in sink.getvalue()


def test_the_script_exits_with_the_verdict(tmp_path: Path) -> None:
    finished_run.run(finished_run.make_config(tmp_path))

    def start(*options: str) -> subprocess.CompletedProcess[str]:
        script = str(ROOT / "jobs" / "verify.py")
        return subprocess.run([sys.executable, script, *options], cwd=tmp_path, capture_output=True, text=True)

    options = ("--manifest", "m.parquet", "--output", "out")
    assert start(*options).returncode == 0
    (tmp_path / "out" / "00000.tar").unlink()
    ended = start(*options)
    assert ended.returncode == 1
    assert "tar: 00000.tar: is missing" in ended.stdout
    assert start("--manifest", "m.parquet").returncode == 2
    assert "--manifest" in start("--help").stdout
