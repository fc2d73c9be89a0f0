"""A disk that loses power: from the operations of a run (`recorder.py`) every state that may be found afterwards.

The rules are those of POSIX, which are weaker than what any one file system does:

- What a file holds is certain once the file was synced. Before, it may be nothing, a part, zeros or all of it.
- That a name stands in a folder, or does not any more, is certain once that folder was synced after the change. That
  goes for names of folders too: where one is lost, so is all that lies in it, synced or not.
- Of changes that are not certain each one may have happened or not, whatever came before or after it. A rename happens
  whole or not at all.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.simulation.recorder import CONTENTS, LOG

#: A folder in a state.
FOLDER = None

#: Path -> the name of its content, or FOLDER.
Tree = Mapping[str, str | None]

#: Up to so many uncertain changes are tried in every combination.
ALL_OF = 6

_ROOT, EMPTY = 0, "empty"


@dataclass
class _Change:
    """A change of a folder's names, or of what a file holds.

    Attributes:
        at: number of the operation.
        holder: the folder or file that must be synced for it.
        names: (folder, name) -> what it stands for from now on; None where it is gone.
        content: what the file holds from now on.
        certain_at: operation since which nothing can undo it.
    """

    at: int
    holder: int
    names: dict[tuple[int, str], int | None] = field(default_factory=dict)
    content: str | None = None
    certain_at: int | None = None


class Disk:
    """The record of a run as changes and syncs."""

    def __init__(self, operations: Sequence[Mapping[str, str]], before: Tree | None = None) -> None:
        self.operations = operations
        self.before: Tree = before or {}
        self._changes: list[_Change] = []
        self._uncertain: dict[int, list[_Change]] = {}
        self._numbers = itertools.count(1)
        self._folders: dict[int, dict[str, int]] = {_ROOT: {}}
        self._holds: dict[int, str] = {}
        for path, content in sorted(self.before.items()):
            self._apply(-1, {"op": "mkdir" if content is FOLDER else "create", "path": path})
            if content is not FOLDER:
                self._apply(-1, {"op": "write", "path": path, "content": content})
        for change in self._changes:
            change.certain_at = -1
        self._uncertain.clear()
        for at, operation in enumerate(operations):
            self._apply(at, operation)

    def _apply(self, at: int, operation: Mapping[str, str]) -> None:
        op, path = operation["op"], operation["path"]
        if op == "sync":
            for change in self._uncertain.pop(self._find(path), ()):
                change.certain_at = at
            return
        if op == "write":
            self._write(at, self._find(path), operation["content"])
            return
        folder, name = self._place(path)
        if op in ("mkdir", "create"):
            if op == "create" and name in self._folders[folder]:
                self._write(at, self._folders[folder][name], EMPTY)
                return
            number = next(self._numbers)
            if op == "mkdir":
                self._folders[number] = {}
            else:
                self._holds[number] = EMPTY
            self._rename(at, folder, {(folder, name): number})
        elif op in ("unlink", "rmdir"):
            self._rename(at, folder, {(folder, name): None})
        else:
            to_folder, to = self._place(operation["to"])
            assert to_folder == folder, "a rename between folders is certain only when both are synced; not modelled"
            moved = self._folders[folder][name]
            gone: dict[tuple[int, str], int | None] = {} if op == "link" else {(folder, name): None}
            self._rename(at, folder, {**gone, (folder, to): moved})

    def _write(self, at: int, number: int, content: str) -> None:
        if self._holds[number] != content:
            self._holds[number] = content
            self._add(_Change(at, number, content=content))

    def _rename(self, at: int, folder: int, names: dict[tuple[int, str], int | None]) -> None:
        for (_, name), number in names.items():
            if number is None:
                del self._folders[folder][name]
            else:
                self._folders[folder][name] = number
        self._add(_Change(at, folder, names))

    def _add(self, change: _Change) -> None:
        self._changes.append(change)
        self._uncertain.setdefault(change.holder, []).append(change)

    def _find(self, path: str) -> int:
        number = _ROOT
        for part in filter(None, path.split("/")):
            number = self._folders[number][part]
        return number

    def _place(self, path: str) -> tuple[int, str]:
        folder, _, name = path.rpartition("/")
        return self._find(folder), name

    def tree(self, at: int, lost: frozenset[int] = frozenset(), torn: Mapping[int, str] = {}) -> Tree:
        """What lies there after operation `at`, when some of its changes have not happened.

        Args:
            lost: places of changes in the record.
            torn: file -> what is found in it instead.
        """
        folders: dict[int, dict[str, int]] = {number: {} for number in self._folders}
        holds: dict[int, str] = {}
        for place, change in enumerate(self._changes):
            if change.at > at:
                break
            if place in lost:
                continue
            if change.content is not None:
                holds[change.holder] = change.content
            for (folder, name), number in change.names.items():
                if number is None:
                    folders[folder].pop(name, None)
                else:
                    folders[folder][name] = number
        found: dict[str, str | None] = {}
        waiting = [("", _ROOT)]
        while waiting:
            above, folder = waiting.pop()
            for name, number in folders[folder].items():
                path = f"{above}{name}"
                if number in folders:
                    found[path] = FOLDER
                    waiting.append((f"{path}/", number))
                else:
                    found[path] = torn.get(number, holds.get(number, EMPTY))
        return found

    def uncertain(self, at: int) -> list[int]:
        """Places in the record of the changes that may not have happened after operation `at`."""
        return [
            place
            for place, change in enumerate(self._changes)
            if change.at <= at and (change.certain_at is None or change.certain_at > at)
        ]

    def states(self, at: int, order: random.Random, most: int) -> Iterator[Tree]:
        """States that may be found after power was lost right behind operation `at`.

        All combinations where they are few; else none, all, each alone, all but each, and drawn ones, `most` in all.
        """
        uncertain = self.uncertain(at)
        if len(uncertain) <= ALL_OF:
            sets = [frozenset(each) for n in range(len(uncertain) + 1) for each in itertools.combinations(uncertain, n)]
        else:
            everything = frozenset(uncertain)
            ones = [frozenset({place}) for place in uncertain]
            order.shuffle(ones)
            sets = [frozenset(), everything, *(each for one in ones for each in (one, everything - one))]
            while len(sets) < most:
                sets.append(frozenset(place for place in uncertain if order.random() < 0.5))
        files = {self._changes[place].holder for place in uncertain if self._changes[place].content is not None}
        for lost in sets[:most]:
            yield self.tree(at, lost)
            if files:
                yield self.tree(at, lost, {number: order.choice(["empty", "half", "zeros"]) for number in files})

    def promised(self, at: int) -> Tree:
        """What whoever wrote it may rely on after operation `at`: the files whose own folder was synced behind them."""
        whole = self.tree(at)
        own = self.tree(at, frozenset(place for place in self.uncertain(at) if not self._is_folder(place)))
        return {path: content for path, content in own.items() if whole.get(path, "gone") == content}

    def _is_folder(self, place: int) -> bool:
        """True where the change is that a folder appeared, which its own entries take for granted."""
        numbers = self._changes[place].names.values()
        return len(numbers) == 1 and all(number in self._folders for number in numbers if number is not None)


class Record:
    """A record on disk."""

    def __init__(self, folder: Path) -> None:
        self._contents = folder / CONTENTS
        self.operations = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]

    def content(self, name: str) -> bytes:
        """What a file holds whose content has this name."""
        return b"" if name == EMPTY else (self._contents / name).read_bytes()

    def lay_out(self, tree: Tree, root: Path, disk: Mapping[str, str] = {}) -> None:
        """Make a state real in an empty folder."""
        root.mkdir(parents=True)
        for path, content in sorted(tree.items()):
            if content is FOLDER:
                (root / path).mkdir()
            elif content == "half":
                (root / path).write_bytes(b"half of what it was to be")
            elif content == "zeros":
                (root / path).write_bytes(bytes(100))
            else:
                assert content is not None
                (root / path).write_bytes(self.content(content))


def tree_of(root: Path) -> dict[str, bytes | None]:
    """A real folder as paths and contents."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else FOLDER
        for path in sorted(root.rglob("*"))
    }
