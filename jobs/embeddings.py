"""Look into an embedding store, copy it out and in, and keep it tidy.

    python jobs/embeddings.py list STORE                        what it holds, by checkpoint
    python jobs/embeddings.py export STORE FOLDER               as img_emb/*.npy and metadata/*.parquet (clip-retrieval)
    python jobs/embeddings.py import FOLDER --store STORE       what was exported, into another store
    python jobs/embeddings.py import FOLDER --manifest M.parquet   embeddings from anywhere, as rows to decode
    python jobs/embeddings.py prune STORE                       few large parts of many small ones, damage dropped

A store is a folder or URL; a run's own is `_run/embeddings` of its output. All of this may run beside jobs that use
the store.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

# As in generate.py: this source tree first, this folder not at all.
_ROOT = str(Path(__file__).resolve().parent.parent)
sys.path[:] = [
    _ROOT,
    *(entry for entry in sys.path if entry not in (_ROOT, str(Path(__file__).resolve().parent))),
]

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from jobs.cli import EXIT_OK, run_script  # noqa: E402
from manifests.embeddings import clip_retrieval, compaction  # noqa: E402
from manifests.errors import UsageError  # noqa: E402


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    sub = parser.add_subparsers(required=True, metavar="WHAT")
    one = sub.add_parser("list", help="what a store holds, by checkpoint, dtype and width")
    one.add_argument("store", metavar="STORE", help="folder or URL")
    one.set_defaults(run=list_store)
    one = sub.add_parser("export", help="write a store's embeddings in clip-retrieval's layout")
    one.add_argument("store", metavar="STORE", help="folder or URL")
    one.add_argument("folder", metavar="FOLDER", help="folder or URL to write to")
    one.add_argument("--checkpoint", metavar="FINGERPRINT", help="only of this one (see list)")
    one.set_defaults(run=export)
    one = sub.add_parser("import", help="read clip-retrieval's layout into a store, or into a manifest")
    one.add_argument("folder", metavar="FOLDER", help="folder or URL with img_emb and metadata")
    target = one.add_mutually_exclusive_group(required=True)
    target.add_argument("--store", metavar="STORE", help="store for what was exported from one")
    target.add_argument("--manifest", metavar="FILE", help="Parquet manifest to write, one row per embedding")
    one.set_defaults(run=import_folder)
    one = sub.add_parser("prune", help="put small parts together, drop damaged and doubled rows, make one index")
    one.add_argument("store", metavar="STORE", help="folder or URL")
    one.add_argument("--keep", nargs="+", metavar="FINGERPRINT", help="drop what other checkpoints made (see list)")
    one.add_argument("--check", action="store_true", help="read large parts as well, to find damage in them")
    one.set_defaults(run=prune)
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
    rows = clip_retrieval.export_store(given.store, given.folder, given.checkpoint)
    print(f"{rows:,} embeddings written to {given.folder}")


def import_folder(given: argparse.Namespace) -> None:
    """Copy in."""
    if given.store is not None:
        print(f"{clip_retrieval.import_store(given.folder, given.store):,} embeddings added to {given.store}")
        return
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


def _names(store: str) -> list[str]:
    names = compaction.part_names(store)
    if not names:
        raise UsageError(f"{store} holds no embeddings; a run keeps them in _run/embeddings of its output")
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, do, tell."""
    given = _parser().parse_args(arguments)
    given.run(given)
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)
