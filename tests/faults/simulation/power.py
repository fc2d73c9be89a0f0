"""Loss of power in the middle of a job: recorded stories, the states each may leave, and what must be true of them.

Of every state that a disk may be found in (`disk.py`):
- what somebody wrote and relied on is there (`lost_promises`),
- a shard that counts as sealed is whole, and an output that counts as finished is (`half_done`),
- and the job, started again on it, makes the files of an undisturbed run, byte for byte (`resumed`).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manifests.commit import ShardStats
from manifests.config import RunConfig
from manifests.embeddings import kept_clip
from tests.faults.simulation.disk import FOLDER, Disk, Record, Tree, tree_of
from tests.faults.simulation.engine import Engine, generate
from tests.faults.simulation.recorder import recording
from tests.unit.finished_run import write_manifest

ROWS: tuple[dict[str, Any], ...] = tuple(
    {"id": f"r{i}", "task": "text2img", "prompt": f"prompt {i}", "seed": i, "num_images": 1} for i in range(6)
)

#: In the recorded folder; two levels that do not exist before.
OUTPUT = "runs/out"

_SHARD_FILE = re.compile(rf"{OUTPUT}/\d{{5}}")
_STATS = re.compile(rf"{OUTPUT}/\d{{5}}_stats\.json$")


@dataclass
class Story:
    """A start of the job, recorded, and how the next one goes on.

    Attributes:
        disk: what it did; `before` lay there when it began.
        whole: shard files of an undisturbed run.
        go_on: starts the job again on a folder.
    """

    name: str
    record: Record
    disk: Disk
    whole: Mapping[str, bytes]
    go_on: Callable[[Path], object]

    def crashes(self, seed: int, most: int) -> Iterator[tuple[int, Tree]]:
        """Every crash point with the states that it may leave; each state once."""
        seen = set()
        for at in range(-1, len(self.disk.operations)):
            for state in self.disk.states(at, random.Random(f"{seed}/{at}"), most):
                key = frozenset(state.items())
                if key not in seen:
                    seen.add(key)
                    yield at, state

    def lost_promises(self, at: int, state: Tree) -> list[str]:
        """Files that somebody relied on by then and that are not there, or are not what they were."""
        promised = self.disk.promised(at).items()
        return [path for path, content in promised if content is not FOLDER and state.get(path, "gone") != content]

    def half_done(self, state: Tree) -> list[str]:
        """Files that a sealed shard names and that are not what it says; an end that was told too early."""
        wrong = []
        for path in filter(_STATS.match, state):
            stats = ShardStats.model_validate_json(self._read(state[path]))
            for file in stats.files:
                content = state.get(f"{OUTPUT}/{file.name}")
                if content is None or hashlib.sha256(self._read(content)).hexdigest() != file.sha256:
                    wrong.append(file.name)
        if f"{OUTPUT}/_SUCCESS" in state:
            plan = state.get(f"{OUTPUT}/_run/plan.json")
            shards = json.loads(self._read(plan))["shards"] if plan else None
            wrong += ["_SUCCESS"] * (shards != len(list(filter(_STATS.match, state))))
        return wrong

    def _read(self, content: str | None) -> bytes:
        assert content is not None
        return self.record.content(content) if len(content) == 64 else b""

    def resumed(self, state: Tree, folder: Path) -> list[str]:
        """Shard files that are not those of an undisturbed run when the job has been started again on a state."""
        shutil.rmtree(folder, ignore_errors=True)
        self.record.lay_out(state, folder)
        self.go_on(folder)
        found = shard_files(folder)
        wrong = [name for name in {*found, *self.whole} if found.get(name) != self.whole.get(name)]
        return wrong if (folder / OUTPUT / "_SUCCESS").exists() else [*wrong, "_SUCCESS"]


def shard_files(root: Path) -> dict[str, bytes]:
    """Committed files by name, with those of embeddings that are kept."""
    images = (path for path in (root / OUTPUT).iterdir() if path.name[0].isdigit())
    kept = (root / OUTPUT / kept_clip.FOLDER).rglob("[im]*_?????.*")
    return {path.name: path.read_bytes() for path in itertools.chain(images, kept)}


def config_for(root: Path, manifest: Path, **settings: Any) -> RunConfig:
    """The job on a manifest, with its output below a root."""
    kept = {"batch_size": 2, "shard_size": 4, "height": 64, "width": 64, "keep_clip": True}
    output = str(root / OUTPUT)
    return RunConfig(manifest=(str(manifest),), output=output, embeddings="none", report=False, **kept, **settings)


def tell(name: str, folder: Path, start: Callable[[Path], object], go_on: Callable[[Path], object]) -> Story:
    """Record a start in `folder/disk`, where an earlier one may have left something."""
    root, record = folder / "disk", folder / "record"
    root.mkdir(exist_ok=True)
    before = tree_of(root)
    (record / "contents").mkdir(parents=True)
    for data in filter(None, before.values()):
        (record / "contents" / hashlib.sha256(data).hexdigest()).write_bytes(data)
    with recording(str(root), str(record)):
        start(root)
    kept = Record(record)
    named = {path: FOLDER if data is FOLDER else _name(data) for path, data in before.items()}
    disk = Disk(kept.operations, named)
    end = disk.tree(len(kept.operations))
    # What the record does not explain was done behind the recorder's back.
    assert {path: FOLDER if name is FOLDER else kept.content(name) for path, name in end.items()} == tree_of(root)
    return Story(name, kept, disk, shard_files(root), go_on)


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest() if data else "empty"


def first_run(folder: Path) -> Story:
    """An output from nothing to its end."""

    def start(root: Path) -> None:
        generate(config_for(root, folder / "m.parquet"), Engine(random.Random(1)))

    write_manifest(folder / "m.parquet", ROWS)
    return tell("a first run", folder, start, start)


def retried_rows(folder: Path) -> Story:
    """Failed rows of a finished output that are tried again, which replaces two shards."""
    sick = Engine(random.Random(2), fails=("r1", "r4"))
    write_manifest(folder / "m.parquet", ROWS)

    def start(root: Path) -> None:
        generate(config_for(root, folder / "m.parquet", retry_errors=True), Engine(random.Random(3)))

    (folder / "disk").mkdir()
    generate(config_for(folder / "disk", folder / "m.parquet"), sick)
    return tell("failed rows tried again", folder, start, start)


def appended_rows(folder: Path) -> Story:
    """Rows that are added to the manifest of a finished output."""
    manifest = folder / "manifest"
    manifest.mkdir()
    write_manifest(manifest / "a.parquet", ROWS)
    more = [{**row, "id": f"new{row['id']}", "prompt": f"new {row['prompt']}"} for row in ROWS[:4]]

    def start(root: Path) -> None:
        generate(config_for(root, manifest, append=True), Engine(random.Random(4)))

    (folder / "disk").mkdir()
    generate(config_for(folder / "disk", manifest), Engine())
    write_manifest(manifest / "b.parquet", more)
    return tell("rows appended", folder, start, start)


STORIES: Sequence[Callable[[Path], Story]] = (first_run, retried_rows, appended_rows)
