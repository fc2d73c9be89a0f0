"""The standard streams: closed, in ASCII or unread, they end no script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cli import run_script
from jobs.terminal import lasting

ROOT = Path(__file__).resolve().parents[3]

TALKS = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from jobs.cli import run_script
from jobs.monitoring.progress import RunProgress

def main():
    with RunProgress() as progress:
        for i in range(20000):
            print("größe", i)
        progress.note("a note é")
        print("to stderr é", file=sys.stderr)
    open("new", "w").write(str([open("/dev/null").fileno() > 2]))
    return 3

run_script(main)
"""


@pytest.mark.parametrize(
    "line",
    [
        '("$0" -c "$1"; echo $? >code) 2>&1 | head -1',
        '"$0" -c "$1" <&- >&-; echo $? >code',
        '"$0" -c "$1" <&- >&- 2>&-; echo $? >code',
        'PYTHONIOENCODING=ascii "$0" -c "$1"; echo $? >code',
    ],
)
def test_a_script_comes_to_its_own_end_whatever_its_streams_are(line: str, tmp_path: Path) -> None:
    ended = subprocess.run(["sh", "-c", line, sys.executable, TALKS], cwd=tmp_path, capture_output=True, timeout=300)
    assert (tmp_path / "code").read_text() == "3\n", ended.stderr.decode()
    assert (tmp_path / "new").read_text() == "[True]", "a file must not get the number of a closed stream"
    assert b"Traceback" not in ended.stderr
    assert b"Broken" not in ended.stderr


def test_a_letter_that_the_encoding_lacks_is_escaped(tmp_path: Path) -> None:
    with open(tmp_path / "said", "wb") as file:
        stream = lasting(file.fileno(), "ascii")
        print("größe \udce9", file=stream, flush=True)
    assert (tmp_path / "said").read_bytes() == b"gr\\xf6\\xdfe \\udce9\n"


def test_streams_that_something_else_has_put_in_place_stay(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        print("heard")
        return 0

    with pytest.raises(SystemExit):
        run_script(main)
    assert capsys.readouterr().out == "heard\n"
