"""The READMEs: short where they should be, complete where one looks something up, and no name in them is wrong."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from jobs.benchmark import BENCHMARKS
from manifests.records import GIVEN_EMBEDDINGS, RECORD_NAMES
from manifests.requests.schema import REQUEST_NAMES
from tests.unit import readmes
from tests.unit.readmes import READMES, ROOT, TEXTS

#: Options of `ray start` and `ray job submit` that are named outside of a command.
OPTIONS_OF_RAY = {"--metrics-export-port", "--resources", "--working-dir"}

_PATH = re.compile(r"(?<![\w./])(?:jobs|workers|manifests|tests|infra)/[\w./*-]*")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_first_one_is_read_in_two_minutes() -> None:
    text = READMES[0].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1000


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in readmes.links(path):
        if re.match(r"^\w+://", link):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), link
        assert ROOT in file.parents, f"{link} leads out of the repository"
        assert not anchor or anchor in readmes.anchors(file), link


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_paths_in_backticks_are_there(path: Path) -> None:
    paths = {found.rstrip(".") for code in readmes.inline_code(path) for found in _PATH.findall(code)}
    assert {found for found in paths if not list(ROOT.glob(found.rstrip("/")))} == set()


def test_every_readme_is_linked_from_another() -> None:
    linked = {link for path in READMES[:5] for link in (f"{path.parent}/{link}" for link in readmes.links(path))}
    assert {str(path) for path in READMES[1:]} <= linked


@pytest.mark.parametrize("path", READMES, ids=name)
def test_blocks_say_what_they_are(path: Path) -> None:
    """Else a command could hide from the test that runs them all."""
    diagrams = [block.text for block in readmes.blocks(path) if block.language == ""]
    assert all(text.startswith("manifest -> plan -> ") for text in diagrams)
    assert {block.language for block in readmes.blocks(path)} <= {"", "bash", "text", "python"}


def test_no_row_of_figures_stands_twice() -> None:
    rows = Counter(
        line
        for path in READMES
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("|") and re.search(r"\d", line)
    )
    assert rows.total() > 50
    assert {row for row, count in rows.items() if count > 1} == set()


def test_every_column_of_a_manifest_is_described() -> None:
    text = (ROOT / "manifests" / "README.md").read_text(encoding="utf-8")
    described = {
        cell for row in re.findall(r"^\|([^|]+)\|", text, re.MULTILINE) for cell in re.findall(r"`(\w+)`", row)
    }
    assert {*REQUEST_NAMES, *GIVEN_EMBEDDINGS} <= described


def test_every_column_of_the_index_is_named() -> None:
    assert set(RECORD_NAMES) <= set(readmes.inline_code(ROOT / "jobs" / "README.md"))


def test_every_script_is_in_the_table() -> None:
    scripts = {name(path) for path in (ROOT / "jobs").glob("*.py") if "__main__" in path.read_text(encoding="utf-8")}
    assert len(scripts) >= 6
    assert scripts <= set(readmes.inline_code(ROOT / "jobs" / "README.md"))


def show_help(module: str, *words: str) -> None:
    """Have a script print its options."""
    program = importlib.import_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module, *words, "--help"])
        with pytest.raises(SystemExit):
            program.main()


@pytest.fixture(scope="module")
def known_options() -> set[str]:
    """The options of all scripts."""
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        for script in ("generate", "plan", "make_manifest", "verify", "report", "redo", "evaluate", "export", "score"):
            show_help(f"jobs.{script}")
        for what in ("list", "export", "import", "prune"):
            show_help("jobs.embeddings", what)
        for benchmark in BENCHMARKS:
            show_help("jobs.benchmark", benchmark.NAME)
        show_help("infra.demo_checkpoint.__main__")
    return set(re.findall(r"--[a-z][a-z-]+", shown.getvalue()))


@pytest.mark.parametrize("path", READMES, ids=name)
def test_options_are_some_that_a_script_has(path: Path, known_options: set[str]) -> None:
    named = {word for code in readmes.inline_code(path) for word in re.findall(r"^--[a-z][a-z-]+", code)}
    assert named - known_options - OPTIONS_OF_RAY == set()
