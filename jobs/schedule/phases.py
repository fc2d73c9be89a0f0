"""Phases: all devices embed a piece of the manifest into the store, then all of them decode it; then the next piece.

Nothing idles while one stage has less to do than its part of the devices, and a device holds one model at a time. What
is between the phases lies in the embedding store, so a kill costs no more than it does otherwise. Rows that the prior
fails go on as failed rows, with its reasons, and nothing of the output tells which way its images went.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from jobs.engine.pipeline import Setup, Work, run_decoder, split_by_store
from jobs.schedule.embedding import Embedded, embed
from jobs.schedule.pieces import Pieces
from manifests.commit import Receipt
from manifests.embeddings.store import tidy_index
from manifests.errors import RowStatus

#: Hears of embeddings that were stored; true where the run shall stop.
Hear = Callable[[Embedded], bool]


def run_phases(setup: Setup, pieces: Pieces, work: Sequence[Work], hear: Hear) -> Iterator[Receipt]:
    """As `jobs.engine.pipeline.run_pipeline`, in phases.

    Args:
        setup: with a store; its pools take turns.
        hear: hears of each phase of the prior as it goes on.

    Raises:
        KandinskyBatchError: as there.
    """
    prior = replace(setup, pools=setup.pools.of_phase("prior"))
    decoder = replace(setup, pools=setup.pools.of_phase("decoder"))
    split = split_by_store(setup, work)
    cut = list(pieces.cut(split.with_prior))
    if not cut:
        yield from run_decoder(decoder, split.without_prior, {})
    for number, piece in enumerate(cut):
        setup.notify(f"piece {number + 1} of {len(cut)}: {setup.pools.in_words}")
        failed: defaultdict[tuple[int, int], dict[int, tuple[RowStatus, str]]] = defaultdict(dict)
        for stored in embed(prior, piece, images=False, together=pieces.together):
            # Those that the plan rejects are failed rows before they get here.
            for row in stored.failed_here:
                failed[row.shard, row.batch][row.row] = row.status, row.message
            if hear(stored):
                return
        # The decoder's look-ups each read all index files.
        tidy_index(str(setup.memory.url))
        # What was known before waits for the first piece: one load of the decoder less.
        yield from run_decoder(decoder, [*split.without_prior, *piece] if number == 0 else piece, failed)
