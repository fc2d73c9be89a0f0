"""The server of the report: what it answers, to whom, and what it refuses."""

from __future__ import annotations

import functools
import http.client
import io
import json
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.reporting.server import make_server
from manifests.errors import UsageError
from tests.unit.jobs.reporting.serving import serving

ROOT = Path(__file__).resolve().parents[4]


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str, bytes]:
    """Status, content type, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("GET", path, headers={"Host": f"{host}:{port}"})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, str(answer.headers["Content-Type"]), body


def rows(port: int, query: str = "") -> dict[str, Any]:
    status, _, body = get(port, f"/rows?{query}")
    assert status == 200, body
    answer: dict[str, Any] = json.loads(body)
    return answer


def test_the_page_and_its_rows_and_pictures_come_from_the_shards(output: Path) -> None:
    photo = ROOT / "tests" / "data" / "output_0_1" / "photo.png"
    index = pq.read_table(output / "00001.parquet")
    place = index.schema.get_field_index("image_path")
    pq.write_table(index.set_column(place, index.schema.field("image_path"), [[str(photo)]]), output / "00001.parquet")
    with serving(str(output)) as port:
        status, kind, page = get(port, "/")
        assert (status, kind) == (200, "text/html; charset=utf-8")
        assert b"<option selected>success</option>" in page
        answer = rows(port, "task=img2img")
        (row,) = answer["rows"]
        assert answer["total"] == 1
        assert [one["label"] for one in row["pictures"]] == ["source", "result"]
        assert row["command"] == f"python jobs/redo.py --output {output} --key 000010000"
        with tarfile.open(output / "00001.tar") as tar:
            stored = tar.extractfile("000010000.png")
            assert stored is not None
            assert get(port, f"/full/{row['pictures'][1]['place']}") == (200, "image/png", stored.read())
        for one in row["pictures"]:
            status, kind, body = get(port, f"/small/{one['place']}")
            assert (status, kind, Image.open(io.BytesIO(body)).format) == (200, "image/webp", "WEBP")


def test_failed_rows_say_why_instead_of_showing_a_picture(output: Path) -> None:
    with serving(str(output)) as port:
        failed = [rows(port, f"status={status}")["rows"][0] for status in ("failed_to_load", "failed_to_validate")]
        for row in failed:
            last = row["pictures"][-1]
            assert last["place"] is None
            assert last["note"]
            assert ["why it failed", last["note"]] in row["details"]


@pytest.mark.parametrize(
    ("path", "status", "why"),
    [
        ("/nothing", 404, "there is no such page"),
        ("/../../etc/passwd", 404, "there is no such page"),
        ("/full/000000000/1", 404, "has no such picture"),
        ("/full/999999999/0", 404, "no sealed shard has the key"),
        ("/full/..%2F..%2Fetc%2Fpasswd/0", 404, "no sealed shard has the key"),
        ("/small/000010000/0", 404, "/tmp/oldout/photo.png does not exist"),
        ("/rows?first=many", 400, "first and count are whole numbers"),
    ],
)
def test_what_it_does_not_have_is_told(output: Path, path: str, status: int, why: str) -> None:
    with serving(str(output)) as port:
        got, kind, body = get(port, path)
        assert (got, kind) == (status, "text/plain; charset=utf-8")
        assert why in body.decode()


def test_it_answers_nobody_who_calls_it_by_another_name(output: Path) -> None:
    with serving(str(output)) as port:
        assert get(port, "/rows", host="localhost")[0] == 200
        assert get(port, "/rows", host="evil.example")[0] == 403
        assert get(port, "/full/000000000/0", host="evil.example")[0] == 403


def test_it_listens_on_this_machine_only(output: Path) -> None:
    with make_server(str(output), 0) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_one_sentence(output: Path) -> None:
    with serving(str(output)) as port, pytest.raises(UsageError, match=f"option --port: {port} cannot be taken"):
        make_server(str(output), port)
    with pytest.raises(UsageError, match="option --port: 70000 cannot be taken"):
        make_server(str(output), 70_000)


def test_the_script_says_where_and_ends_well_with_ctrl_c(output: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    script = [sys.executable, str(ROOT / "jobs" / "report.py"), "--output", str(output), "--serve", "--port", "0"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A shell without a terminal has what it starts in the background ignore Ctrl-C, these tests as well.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(script, **pipes, preexec_fn=heard) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert get(int(address.rstrip("/").rsplit(":", 1)[1]), "/")[0] == 200
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=300)
        finally:
            process.kill()
    assert (process.returncode, said) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before
