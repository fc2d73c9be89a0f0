"""`jobs/benchmark.py memory`: whose memory it counts, and one small run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs import benchmark
from jobs.benchmarks.memory import held
from manifests.errors import UsageError


def test_a_process_and_all_that_it_started_are_counted_and_nobody_else(tmp_path: Path) -> None:
    for number, parent, kilobytes in ((10, 1, 100), (11, 10, 20), (12, 11, 3), (13, 1, 4000)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "status").write_text(f"Name:\tx\nPid:\t{number}\nPPid:\t{parent}\n")
        (folder / "smaps_rollup").write_text(f"00400000-7fff\nRss:  99999 kB\nPss:  {kilobytes} kB\nPss_Anon: 7 kB\n")
    # It has ended between one look and the next.
    (tmp_path / "12" / "smaps_rollup").unlink()
    assert held(10, tmp_path) == 120 << 10


def test_what_a_child_of_a_child_holds_is_found_on_this_machine() -> None:
    held_bytes = 64 << 20
    inner = f"x = b'1' * {held_bytes}; print(flush=True); input()"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert held_bytes <= held(process.pid) < 3 * held_bytes
        process.communicate("\n")


@pytest.mark.parametrize("options", [["--edge", "100"], ["--steps", "0"]])
def test_numbers_that_measure_nothing_are_refused(options: list[str]) -> None:
    with pytest.raises(UsageError, match="option"):
        benchmark.main(["memory", *options])


# Two commands, one of which is a whole run.
@pytest.mark.nightly
@pytest.mark.models
@pytest.mark.ray
def test_a_run_is_one_line_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--size", "random", "--schedules", "phases", "--tasks", "inpaint", "--edge", "64"]
    assert benchmark.main(["memory", *options]) == 0
    *_, row = capsys.readouterr().out.splitlines()
    _, tasks, schedule, peak, _, lost, _ = (cell.strip() for cell in row.split("|"))
    assert (tasks, schedule, lost) == ("inpaint", "phases", "0")
    assert 0.5 < float(peak) < 16
