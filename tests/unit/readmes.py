"""What the READMEs hold, as Markdown has it: fenced blocks, inline code, links, headings, and the commands in them."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("manifests", "workers", "jobs", "infra", "infra/demo_checkpoint")
READMES = (ROOT / "README.md", *(ROOT / folder / "README.md" for folder in FOLDERS))
#: Other texts whose links and paths must be right as well.
TEXTS = (*READMES, ROOT / "CHANGELOG.md", *sorted((ROOT / "infra" / "adr").glob("*.md")))

_HEREDOC = re.compile(r"^<<(\w+)$")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language (`bash`, `text`, `python`; empty where an indented one), text and first line."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """A command of a `bash` block: its words, what it is fed by `<<`, and where `>` sends what it prints."""

    words: tuple[str, ...]
    line: int
    stdin: str | None = None
    stdout: str | None = None


def tokens(path: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))


def blocks(path: Path) -> list[Block]:
    """Code blocks in their order."""
    kinds = ("fence", "code_block")
    return [Block(t.info.strip(), t.content, t.map[0] + 1) for t in tokens(path) if t.type in kinds and t.map]


def inline_code(path: Path) -> list[str]:
    """What stands in single backticks; in tables a pipe is written with a backslash."""
    return [part.content for part in _inline(path) if part.type == "code_inline"]


def links(path: Path) -> list[str]:
    """Targets of all links and pictures."""
    found = (part.attrGet("href") or part.attrGet("src") for part in _inline(path))
    return [str(target) for target in found if target]


def anchors(path: Path) -> set[str]:
    """Names that a link may have behind `#`, as GitHub makes them of headings."""
    stream = tokens(path)
    titles = [after.content for token, after in itertools.pairwise(stream) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _inline(path: Path) -> Iterator[Token]:
    for token in tokens(path):
        yield from token.children or ()


def commands(block: Block) -> Iterator[Command]:
    """The commands of a `bash` block; an open quote or a backslash at the end of a line goes on in the next one."""
    lines = iter(enumerate(block.text.splitlines(), block.line + 1))
    for number, line in lines:
        text = line
        while (words := words_of(text)) is None:
            text += "\n" + next(lines)[1]
        if words:
            yield _command(words, number, lines)


def words_of(text: str) -> list[str] | None:
    """The words of a command line, as a shell splits it; None where it goes on in the next line."""
    if text.endswith("\\"):
        return None
    try:
        return shlex.split(text.replace("\\\n", " "), comments=True)
    except ValueError:
        return None


def _command(words: list[str], number: int, lines: Iterator[tuple[int, str]]) -> Command:
    stdin = stdout = None
    if end := _HEREDOC.match(words[-1]):
        body = itertools.takewhile(lambda line: line[1] != end.group(1), lines)
        stdin = "".join(f"{line}\n" for _, line in body)
        words = words[:-1]
    if ">" in words:
        *words, _, stdout = words
    return Command(tuple(words), number, stdin, stdout)
