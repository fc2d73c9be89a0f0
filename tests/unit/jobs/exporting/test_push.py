"""An export goes to a Hub as it lies in its folder, in one commit, and never into somebody else's repository."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from jobs import export
from manifests.errors import StorageError, UsageError
from tests.unit.jobs.exporting.dataset_hub import TOKEN, DatasetHub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DatasetHub]:
    """A Hub, as this process sees it with HF_ENDPOINT and HF_TOKEN."""
    from huggingface_hub import constants

    (tmp_path / "hub").mkdir()
    server = DatasetHub(tmp_path / "hub")
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    yield server
    server.close()


def push(output: str, to: Path, *more: str) -> None:
    words = ["--output", output, "--to", str(to), "--layout", "huggingface", "--license", "cc-by-4.0"]
    assert export.main([*words, "--rows-per-file", "4", *more]) == 0


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_repository_holds_what_the_folder_holds(
    hub: DatasetHub, output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push(output, tmp_path / "to", "--push", "me/cats")
    assert f"{hub.url}/datasets/me/cats" in capsys.readouterr().out
    there, here = contents(hub.root / "me" / "cats"), contents(tmp_path / "to")
    aside = {name for name in here if name.startswith((".export/files/", ".export/finished"))}
    assert {name: data for name, data in there.items() if name != ".gitattributes"} == {
        name: data for name, data in here.items() if name not in aside
    }
    assert hub.private == {"me/cats": True}
    assert len(hub.commits) == 1
    assert len(pd.read_parquet(hub.root / "me" / "cats" / "data")) == 9
    assert 'load_dataset("me/cats", split="train")' in (hub.root / "me" / "cats" / "README.md").read_text()


def test_public_makes_it_for_everybody(hub: DatasetHub, output: str, tmp_path: Path) -> None:
    push(output, tmp_path / "to", "--push", "me/cats", "--public")
    assert hub.private == {"me/cats": False}


def test_pushed_again_smaller_it_leaves_nothing_of_before(hub: DatasetHub, output: str, tmp_path: Path) -> None:
    push(output, tmp_path / "large", "--push", "me/cats")
    push(output, tmp_path / "small", "--limit", "2", "--push", "me/cats")
    names = {name for name in contents(hub.root / "me" / "cats") if name.startswith("data/")}
    assert names == {"data/train-00000-of-00001.parquet"}
    assert len(pd.read_parquet(hub.root / "me" / "cats" / "data")) == 2


def test_a_push_that_broke_sends_only_what_is_not_there(hub: DatasetHub, output: str, tmp_path: Path) -> None:
    hub.patience = 2
    with pytest.raises(StorageError, match="the same command goes on"):
        push(output, tmp_path / "to", "--push", "me/cats")
    assert hub.commits == []
    before, hub.patience = dict(hub.sent), 10**6
    assert len(before) == 2
    push(output, tmp_path / "to", "--push", "me/cats")
    assert len(hub.commits) == 1
    assert 10**6 - hub.patience == len(hub.sent) - len(before)


def test_a_repository_of_somebody_else_is_refused_before_anything_is_made(
    hub: DatasetHub, output: str, tmp_path: Path
) -> None:
    (hub.root / "me" / "cats").mkdir(parents=True)
    (hub.root / "me" / "cats" / "thesis.pdf").write_text("mine")
    with pytest.raises(UsageError, match=r"me/cats holds thesis\.pdf, which no export of this program has put there"):
        push(output, tmp_path / "to", "--push", "me/cats")
    assert not (tmp_path / "to").exists()
    assert hub.commits == []


def test_an_empty_repository_may_be_pushed_to(hub: DatasetHub, output: str, tmp_path: Path) -> None:
    (hub.root / "me" / "cats").mkdir(parents=True)
    (hub.root / "me" / "cats" / ".gitattributes").write_text("")
    push(output, tmp_path / "to", "--push", "me/cats")
    assert len(hub.commits) == 1


def test_without_leave_to_write_it_says_how_to_log_in(
    hub: DatasetHub, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(UsageError, match=r"does not let this user write me/cats; log in .`hf auth login`."):
        push(output, tmp_path / "to", "--push", "me/cats")
    assert list((tmp_path / "to" / "data").iterdir())  # The export stands, and is pushed by the same command.


def test_a_hub_that_is_not_there_is_told(hub: DatasetHub, output: str, tmp_path: Path) -> None:
    hub.close()
    with pytest.raises(StorageError, match="the Hub cannot be reached"):
        push(output, tmp_path / "to", "--push", "me/cats")


@pytest.mark.parametrize("name", ["cats", "me/cats/more", "me/", "/cats", "m e/cats", "me/cats--", ".me/cats"])
def test_a_name_that_is_none_is_refused(hub: DatasetHub, output: str, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="option --push"):
        push(output, tmp_path / "to", "--push", name)
    assert not (tmp_path / "to").exists()
