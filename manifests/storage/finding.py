"""Finding: the files that a person may mean by a location, and what lies there and is left out, with the reason."""

from __future__ import annotations

import fnmatch
import os
import posixpath
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from manifests.errors import UsageError
from manifests.storage import retries
from manifests.storage.locations import filesystem, folder_of, is_remote, protocol

#: A folder that holds such a folder is the output of a run, and never an input that was not named itself.
_RUN_FOLDER = "_run"

HIDDEN = "hidden (a name that begins with .)"
MARKER = "a marker that holds no data"
MARKED = "marked as no data (a name that begins with _)"
OUTPUT = f"the output of a run (a folder with {_RUN_FOLDER}/)"
LINKED = "a link to a folder that is read already"
NO_FILE = "neither a file nor a folder"

#: What Hive writes as the value of a null.
_NULL = "__HIVE_DEFAULT_PARTITION__"

#: Names that an index of a run has; only folders with such files are asked for `_run/` on an object store.
_INDEX_NAME = re.compile(r"\d{5,}\.parquet$")


@dataclass(frozen=True)
class Found:
    """What a location stands for.

    Attributes:
        files: absolute locations, sorted.
        base: the folder that was named; for a glob the part before its first sign.
        left_out: reason -> files, and folders as a whole, that lie there and are not taken.
    """

    files: tuple[str, ...]
    base: str
    left_out: Mapping[str, tuple[str, ...]]

    def partition_of(self, url: str) -> tuple[tuple[str, str | None], ...]:
        """Columns that the names of folders between `base` and a file give, as Hive, Spark and DuckDB write them.

        `steps=3/lang=a%20b/` is `(("steps", "3"), ("lang", "a b"))`.
        """
        return _pairs(folder_of(url)[len(self.base.rstrip("/")) :])

    @property
    def partition_above(self) -> tuple[tuple[str, str | None], ...]:
        """The same of the folders down to `base`, which are no columns, because a folder below them was named."""
        return _pairs(self.base)


def _pairs(path: str) -> tuple[tuple[str, str | None], ...]:
    pairs = []
    for part in path.strip("/").split("/"):
        key, sign, value = part.partition("=")
        if key and sign:
            pairs.append((unquote(key), None if value == _NULL else unquote(value)))
    return tuple(pairs)


def find(location: str, suffixes: tuple[str, ...], marks: bool = True) -> Found:
    """Files a person may mean by a location: the file itself, what a glob matches, or a folder's files.

    Folders that a glob matches are opened. Links to folders are followed, and no folder is read twice. Outputs of runs
    below the location are left out.

    Args:
        location: file, glob or folder, local or remote.
        suffixes: endings that a folder's files must have, in lower case, which the files' own need not be.
        marks: names that begin with `_` are no data, as everywhere in the Parquet world; hidden names never are.

    Raises:
        StorageError: the storage refused, or a folder must not be read.
        UsageError: the name of a file cannot be kept as text.
    """
    if protocol(location) in ("http", "https"):
        # A web server has no folders, and `?` begins a query there.
        return Found((location,), folder_of(location), {})
    kind = _Remote if is_remote(location) else _Local
    found = retries.request("list", location, lambda: kind(location, suffixes, marks).run())
    for name in found.files:
        _refuse_other_encoding(name)
    return found


def _refuse_other_encoding(name: str) -> None:
    """Names go into Parquet, JSON and URLs; Linux takes any bytes for one, such as letters of another time."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"the name of the file {os.fsencode(name)!r} is not UTF-8; rename it (convmv -f latin1 -t utf8 does whole "
            "folders)"
        ) from error


def _is_glob(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _shown(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()


@dataclass
class _Search:
    """One location looked at; collects what is found and what is not."""

    location: str
    suffixes: tuple[str, ...]
    marks: bool
    files: set[str] = field(default_factory=set)
    left_out: dict[str, set[str]] = field(default_factory=dict)

    def leave(self, path: str, reason: str) -> None:
        """Do not take a file or folder."""
        self.left_out.setdefault(reason, set()).add(path)

    def judge(self, name: str, is_file: bool) -> str | None:
        """Why a name is no data's, whatever it holds; None where it may be."""
        if not name.startswith((".", "_") if self.marks else "."):
            return None
        if is_file and not name.lower().endswith(self.suffixes):
            return MARKER
        return HIDDEN if name.startswith(".") else MARKED

    def take(self, path: str) -> None:
        """Take a file of a folder, where its ending is one of those."""
        if path.lower().endswith(self.suffixes):
            self.files.add(path)
        else:
            self.leave(path, f"not one of {', '.join(self.suffixes)}")

    def found(self, base: str, name: Any = str) -> Found:
        """What was found, by the names that everybody else uses."""
        left = {reason: tuple(sorted(_shown(name(path)) for path in paths)) for reason, paths in self.left_out.items()}
        return Found(tuple(sorted(map(name, self.files))), name(base), left)


@dataclass
class _Local(_Search):
    """Looks through folders of this machine."""

    _seen: set[tuple[int, int]] = field(default_factory=set)
    _links: list[str] = field(default_factory=list)

    def run(self) -> Found:
        """The whole search."""
        path = str(filesystem(self.location)[1])
        try:
            mode = os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return self._glob(path)
        if not stat.S_ISDIR(mode):
            self.files.add(path)
            return self.found(posixpath.dirname(path))
        self._walk(path)
        return self.found(path.rstrip("/") or "/")

    def _glob(self, path: str) -> Found:
        parts = path.split("/")
        first = next((place for place, part in enumerate(parts) if _is_glob(part)), None)
        # A name with signs is taken by its letter where it exists.
        while first is not None and os.path.exists("/".join(parts[: first + 1])):
            first = next((place for place, part in enumerate(parts) if place > first and _is_glob(part)), None)
        if first is None:
            return self.found(posixpath.dirname(path))
        base = "/".join(parts[:first]) or "/"
        outputs: dict[str, bool] = {}
        for match in sorted(set(self._expand(base, parts[first:]))):
            output = self._output_above(match, base, outputs)
            if output:
                self.leave(f"{output}/", OUTPUT)
            elif os.path.islink(match) and f"{base}/".startswith(f"{os.path.realpath(match)}/"):
                self.leave(f"{match}/", LINKED)
            elif os.path.isdir(match):
                self._walk(match)
            elif os.path.isfile(match):
                self.files.add(match)
            else:
                self.leave(match, NO_FILE)
        return self.found(base)

    def _expand(self, folder: str, parts: list[str]) -> Iterator[str]:
        """Paths below a folder that match the parts of a glob; `**` stands for any folders, and for none."""
        if not parts:
            yield folder
        elif not _is_glob(parts[0]) or os.path.exists(posixpath.join(folder, parts[0])):
            if os.path.exists(path := posixpath.join(folder, parts[0])):
                yield from self._expand(path, parts[1:])
        elif os.path.isdir(folder):
            if parts[0] == "**":
                yield from self._expand(folder, parts[1:] or ["*"])
            for name in sorted(os.listdir(folder)):
                path = posixpath.join(folder, name)
                is_folder = os.path.isdir(path)
                reason = None if parts[0].startswith(name[0]) else self.judge(name, not is_folder)
                if parts[0] == "**":
                    if reason is None and is_folder and not os.path.islink(path):
                        yield from self._expand(path, parts)
                elif fnmatch.fnmatchcase(name, parts[0]):
                    if reason is None:
                        yield from self._expand(path, parts[1:])
                    else:
                        self.leave(f"{path}/" if is_folder else path, reason)

    def _output_above(self, path: str, base: str, known: dict[str, bool]) -> str | None:
        """The output that a path below the base is or lies in."""
        inner = path[len(base) :].strip("/").split("/")
        for count in range(1, len(inner) + 1):
            folder = posixpath.join(base, *inner[:count])
            if folder not in known:
                known[folder] = os.path.isdir(posixpath.join(folder, _RUN_FOLDER))
            if known[folder]:
                return folder
        return None

    def _walk(self, path: str) -> None:
        """Take a folder's files; links to folders come last, so that a folder is known by its own name."""
        self._folder(path, top=True)
        while self._links:
            self._folder(self._links.pop(0), top=False)

    def _folder(self, path: str, top: bool) -> None:
        state = os.stat(path)
        if (state.st_dev, state.st_ino) in self._seen:
            if not top:
                self.leave(f"{path}/", LINKED)
            return
        self._seen.add((state.st_dev, state.st_ino))
        with os.scandir(path) as entries:
            inside = sorted(entries, key=lambda entry: entry.name)
        if not top and any(entry.name == _RUN_FOLDER and entry.is_dir() for entry in inside):
            self.leave(f"{path}/", OUTPUT)
            return
        for entry in inside:
            reason = self.judge(entry.name, not entry.is_dir())
            if reason is not None:
                self.leave(f"{entry.path}/" if entry.is_dir() else entry.path, reason)
            elif entry.is_dir():
                if entry.is_symlink():
                    self._links.append(entry.path)
                else:
                    self._folder(entry.path, top=False)
            elif entry.is_file():
                self.take(entry.path)
            else:
                self.leave(entry.path, NO_FILE)


@dataclass
class _Remote(_Search):
    """Looks through what an object store lists."""

    _fs: Any = None

    def run(self) -> Found:
        """The whole search."""
        self._fs, path = filesystem(self.location)
        self._fs.invalidate_cache()
        base = path
        try:
            kind = self._fs.info(path)["type"]
        except FileNotFoundError:
            base = self._glob(path)
        else:
            if kind == "file":
                base = posixpath.dirname(path)
                self.files.add(path)
            else:
                self._folder(path, path)
        return self.found(base, lambda name: str(self._fs.unstrip_protocol(name)))

    def _glob(self, path: str) -> str:
        parts = path.split("/")
        first = next((place for place, part in enumerate(parts) if _is_glob(part)), None)
        if first is None:
            return posixpath.dirname(path)
        base = "/".join(parts[:first])
        files = []
        for name, entry in sorted(self._fs.glob(path, detail=True).items()):
            reason = self.judge(posixpath.basename(name), entry["type"] == "file")
            if reason is not None and not parts[-1].startswith(posixpath.basename(name)[0]):
                self.leave(name, reason)
            elif entry["type"] == "directory":
                self._folder(name, base)
            else:
                files.append(name)
        folders = {posixpath.dirname(name) for name in files if _INDEX_NAME.search(name)} - {base}
        outputs = {folder for folder in folders if self._fs.isdir(f"{folder}/{_RUN_FOLDER}")}
        for output in outputs:
            self.leave(f"{output}/", OUTPUT)
        self.files.update(name for name in files if posixpath.dirname(name) not in outputs)
        return base

    def _folder(self, path: str, base: str) -> None:
        names = [str(name) for name in self._fs.find(path)]
        outputs = set(_outputs(names, base))
        for output in outputs:
            self.leave(f"{output}/", OUTPUT)
        for name in names:
            if any(name.startswith(f"{output}/") for output in outputs):
                continue
            inner = name[len(path) :].strip("/").split("/")
            reasons = (self.judge(part, place == len(inner) - 1) for place, part in enumerate(inner))
            reason = next((reason for reason in reasons if reason is not None), None)
            if reason is None:
                self.take(name)
            else:
                self.leave(name, reason)


def _outputs(names: Iterable[str], base: str) -> Iterator[str]:
    """Folders below a base that hold `_run/`."""
    for name in names:
        inner = name[len(base) :].strip("/").split("/")
        if _RUN_FOLDER in inner[1:-1]:
            yield "/".join([base, *inner[: inner.index(_RUN_FOLDER, 1)]])
