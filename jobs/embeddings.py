# PYTHON_ARGCOMPLETE_OK
"""Look into an embedding store, copy it out and in, and keep it tidy.

    python jobs/embeddings.py list STORE
    python jobs/embeddings.py export STORE FOLDER   as clip-retrieval has them
    python jobs/embeddings.py import FOLDER --store STORE
    python jobs/embeddings.py import FOLDER --manifest M.parquet
    python jobs/embeddings.py prune STORE

A store is a folder or URL; a run's own is `_run/embeddings` of its output. All of this may run beside jobs that use
the store.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

# As in generate.py: this source tree first, this folder not at all.
_ROOT = str(Path(__file__).resolve().parent.parent)
sys.path[:] = [
    _ROOT,
    *(entry for entry in sys.path if entry not in (_ROOT, str(Path(__file__).resolve().parent))),
]

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from jobs.cli import EXIT_OK, Parser, run_script  # noqa: E402
from manifests.embeddings import clip_retrieval, compaction  # noqa: E402
from manifests.embeddings.store import check_owned  # noqa: E402
from manifests.errors import UsageError  # noqa: E402
from manifests.making import writing  # noqa: E402


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="what to do")

    def command(name: str, run: Callable[[argparse.Namespace], None], what: str) -> argparse._ArgumentGroup:
        one = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        one.set_defaults(run=run)
        return one.add_argument_group("where and what")

    options = command("list", list_store, "what a store holds, by checkpoint, dtype and width")
    options.add_argument("store", metavar="STORE", help="folder or URL")
    options = command("export", export, "write a store's embeddings in clip-retrieval's layout")
    options.add_argument("store", metavar="STORE", help="folder or URL")
    options.add_argument("folder", metavar="FOLDER", help="folder or URL to write to")
    options.add_argument("--checkpoint", metavar="FINGERPRINT", help="only of this one (see list)")
    options.add_argument("--overwrite", action="store_true", help="replace embeddings in this layout that are there")
    options = command("import", import_folder, "read clip-retrieval's layout into a store, or into a manifest")
    options.add_argument("folder", metavar="FOLDER", help="folder or URL with img_emb and metadata")
    target = options.add_mutually_exclusive_group(required=True)
    target.add_argument("--store", metavar="FOLDER_OR_URL", help="store for what was exported from one")
    target.add_argument("--manifest", metavar="FILE_OR_URL", help="Parquet manifest to write, one row per embedding")
    options.add_argument("--overwrite", action="store_true", help="replace the manifest even if it was not made here")
    options.add_argument(
        "--into-existing", action="store_true", help="begin a store in a folder that holds other files"
    )
    options = command("prune", prune, "put small parts together, drop damaged and doubled rows, make one index")
    options.add_argument("store", metavar="STORE", help="folder or URL")
    options.add_argument("--keep", nargs="+", metavar="FINGERPRINT", help="drop what other checkpoints made (see list)")
    options.add_argument("--check", action="store_true", help="read large parts as well, to find damage in them")
    return parser


def list_store(given: argparse.Namespace) -> None:
    """Print one line per checkpoint, dtype and width."""
    rows: Counter[tuple[str, str, int]] = Counter()
    parts: Counter[tuple[str, str, int]] = Counter()
    total, unreadable = 0, 0
    names = _names(given.store)
    for info in compaction.look(given.store, names):
        if info is None:
            unreadable += 1
            continue
        rows.update(info.rows)
        parts.update(info.rows.keys())
        total += info.bytes
    table = Table("checkpoint", "dtype", "width", "embeddings", "parts")
    for origin in sorted(rows):
        table.add_row(*map(str, origin), f"{rows[origin]:,}", f"{parts[origin]:,}")
    Console().print(table)
    print(f"{sum(rows.values()):,} embeddings in {len(names):,} parts, {total / 2**20:,.1f} MiB")
    if unreadable:
        print(f"{unreadable:,} parts cannot be read; what is in them will be computed again, and `prune` drops them")


def export(given: argparse.Namespace) -> None:
    """Copy out."""
    rows = clip_retrieval.export_store(given.store, given.folder, given.checkpoint, given.overwrite)
    print(f"{rows:,} embeddings written to {given.folder}")


def import_folder(given: argparse.Namespace) -> None:
    """Copy in."""
    if given.store is not None:
        if not given.into_existing:
            check_owned(given.store, "--into-existing")
        print(f"{clip_retrieval.import_store(given.folder, given.store):,} embeddings added to {given.store}")
        return
    writing.refuse_foreign(given.manifest, given.overwrite)
    rows = clip_retrieval.import_manifest(given.folder, given.manifest)
    print(f"{rows:,} rows written to {given.manifest}; jobs/generate.py --manifest decodes them")


def prune(given: argparse.Namespace) -> None:
    """Tidy up."""
    _names(given.store)
    done = compaction.prune(given.store, given.keep, given.check)
    dropped = {"damaged": done.damaged, "doubled": done.doubled, "of other checkpoints": done.unwanted}
    words = ", ".join(f"{count:,} {what}" for what, count in dropped.items() if count) or "none"
    print(f"{done.parts_before:,} parts became {done.parts_after:,}; {done.rows:,} embeddings kept, dropped: {words}")
    if done.unreadable:
        print(f"{done.unreadable:,} parts could not be read and are gone")
    if done.foreign:
        print(f"{done.foreign:,} files under parts/ are Parquet of another kind and were left alone")


def _names(store: str) -> list[str]:
    names = compaction.part_names(store)
    if not names:
        raise UsageError(f"{store} holds no embeddings; a run keeps them in _run/embeddings of its output")
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, do, tell."""
    given = _parser().parse(arguments)
    given.run(given)
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)
