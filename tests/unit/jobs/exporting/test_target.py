"""An export goes on where it was killed, with the same bytes, and never into a folder of somebody else's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.exporting import layouts
from jobs.exporting.job import export
from jobs.exporting.rows import Rows
from jobs.exporting.selection import Selection
from manifests.errors import StorageError, UsageError
from tests.s3_server import S3Server
from tests.unit.jobs.exporting.outputs import make_output, wish

LAYOUTS = tuple(layouts.LAYOUTS)


def silent(_: str) -> None:
    pass


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Killed(BaseException):
    """As a kill does: nothing handles it."""


def kill_at(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends when it would read its piece of rows of this number."""
    read, seen = Rows.read, 0

    def dying(rows: Rows, part: Selection) -> Iterator[pa.Table]:
        nonlocal seen
        for table in read(rows, part):
            seen += 1
            if seen == piece:
                raise Killed
            yield table

    monkeypatch.setattr(Rows, "read", dying)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("piece", [1, 2, 5, 7])
def test_killed_anywhere_it_goes_on_to_the_same_bytes(
    output: str, tmp_path: Path, layout: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.exporting.rows.PIECE", 2)
    whole, killed = (wish(output, tmp_path / name, layout, shuffle=2, resize=32) for name in ("whole", "killed"))
    assert export(whole, silent).made == 3
    with monkeypatch.context() as patch:
        kill_at(piece, patch)
        if piece < 7 or layout == "huggingface":  # whose card reads rows once more
            with pytest.raises(Killed):
                export(killed, silent)
    made = export(killed, silent).made
    assert made == {1: 3, 2: 3, 5: 1}.get(piece, 0 if layout == "huggingface" else 3)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_folders_table_is_not_begun_again_when_its_pieces_are_being_cleared_up(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = wish(output, tmp_path / "to", "folder")

    def dying(url: str, recursive: bool = False) -> None:
        Path(url).unlink()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("manifests.storage.remove", dying)
        with pytest.raises(Killed):
            export(asked, silent)
    export(asked, silent)
    export(wish(output, tmp_path / "whole", "folder"), silent)
    assert contents(tmp_path / "to") == contents(tmp_path / "whole")


def test_a_finished_export_is_left_alone_with_what_a_person_has_written(output: str, tmp_path: Path) -> None:
    asked = wish(output, tmp_path / "to", "huggingface")
    export(asked, silent)
    (tmp_path / "to" / "README.md").write_text("mine")
    (tmp_path / "to" / "notes.txt").write_text("mine")
    before = contents(tmp_path / "to")
    assert export(asked, silent).made == 0
    assert contents(tmp_path / "to") == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_with_other_files_is_not_written_to(output: str, tmp_path: Path, layout: str) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds thesis\.txt, and no export of this program"):
        export(wish(output, tmp_path, layout), silent)
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


def test_the_output_itself_is_no_target(output: str) -> None:
    before = contents(Path(output))
    with pytest.raises(UsageError, match="and no export of this program"):
        export(wish(output, Path(output), "folder"), silent)
    assert contents(Path(output)) == before


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"limit": 3}, "--limit was None and is 3"),
        ({"resize": 32}, "--resize was None and is 32"),
        ({"where": "rating < 1"}, "--where was None and is 'rating < 1'"),
        ({"layout": "folder"}, "--layout was 'webdataset' and is 'folder'"),
    ],
)
def test_another_export_in_the_same_folder_is_told_by_what_differs(
    output: str, tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    export(wish(output, tmp_path / "to"), silent)
    before = contents(tmp_path / "to")
    with pytest.raises(UsageError, match=words) as caught:
        export(wish(output, tmp_path / "to", **changed), silent)
    assert "has changed" not in str(caught.value)
    assert contents(tmp_path / "to") == before


def test_an_output_that_has_changed_is_told(output: str, tmp_path: Path) -> None:
    export(wish(output, tmp_path / "to"), silent)
    other = make_output(tmp_path / "other", seed=8) if (tmp_path / "other").mkdir() is None else ""
    with pytest.raises(UsageError, match="holds another export: the output has changed"):
        export(wish(other, tmp_path / "to"), silent)


def test_it_goes_to_an_object_store_and_a_refusal_there_is_a_storage_error(
    output: str, s3: S3Server, tmp_path: Path
) -> None:
    import fsspec

    export(wish(output, tmp_path / "here", "folder"), silent)
    there = wish(output, tmp_path, "folder")
    export(there.__class__(**{**there.__dict__, "to": "s3://bucket/to"}), silent)
    fs = fsspec.filesystem("s3")
    found = {path.removeprefix("bucket/to/"): fs.cat_file(path) for path in fs.find("bucket/to")}
    assert found == contents(tmp_path / "here")
    with pytest.raises(StorageError):
        export(there.__class__(**{**there.__dict__, "to": "s3://no-such-bucket/to"}), silent)
