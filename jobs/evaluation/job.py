"""One evaluation: choose images, summarize their scores, and hold them against a reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.benchmarks import tables
from jobs.evaluation.distances import cmmd, frechet
from jobs.evaluation.encoder import Encoder
from jobs.evaluation.scores import PERCENTILES, Line, score_lines
from jobs.evaluation.sources import of_output, of_reference
from jobs.evaluation.statistics import Statistics, save
from jobs.exporting.selection import Choice, select
from jobs.output.summary import summarize
from jobs.run import run_folder
from manifests.errors import UsageError
from workers.device.device import DeviceKind


@dataclass(frozen=True)
class Wish:
    """What a person asks for.

    Attributes:
        output: of a run.
        choice: which of its images.
        columns: of numbers to summarize; empty: all scores.
        reference: what they are compared with; None: nothing.
        save: where statistics of them are to be kept; None: nowhere.
        encode: embed images also where their embeddings are kept.
        checkpoint: where the run's lies now; None: where the run had it.
    """

    output: str
    choice: Choice
    columns: Sequence[str] = ()
    reference: str | None = None
    save: str | None = None
    encode: bool = False
    checkpoint: str | None = None


@dataclass(frozen=True)
class Distances:
    """How far chosen images are from a reference.

    Attributes:
        images, reference_images: compared; CMMD is of a sample of them where they are many (statistics.py).
        width: numbers of an embedding; with no more images than that the Frechet distance says little.
        encoder: fingerprint of what has embedded both.
    """

    reference: str
    images: int
    reference_images: int
    width: int
    encoder: str
    cmmd: float
    frechet: float


@dataclass(frozen=True)
class Evaluation:
    """What came of it.

    Attributes:
        images: that were chosen.
        scores: of them; see `score_lines`.
        distances: None without a reference.
    """

    output: str
    images: int
    scores: list[Line]
    distances: Distances | None


def evaluate(wish: Wish, kind: DeviceKind) -> Evaluation:
    """Do it.

    Raises:
        UsageError: it cannot be done like this.
        StorageError, CheckpointError: something cannot be read.
    """
    if wish.save is not None and not wish.save.endswith(".npz"):
        raise UsageError(f"option --save-statistics: give a name that ends with .npz; got {wish.save!r}")
    if wish.choice.limit is not None and wish.choice.limit < 1:
        raise UsageError(f"option --limit: give a number of 1 or more; got {wish.choice.limit}")
    summary = summarize(wish.output)
    chosen = select(wish.output, summary.stats, wish.choice)
    lines = score_lines(wish.output, chosen, wish.columns)
    distances = None
    if wish.reference is not None or wish.save is not None:
        place = {"checkpoint": wish.checkpoint} if wish.checkpoint else {}
        encoder = Encoder(run_folder.settings(wish.output, **place), kind)
        # First the reference: what is wrong with it is told before hours of embedding.
        other = None if wish.reference is None else of_reference(wish.reference, encoder, wish.encode)
        if other is not None:
            _refuse_unlike(other, encoder, wish.reference or "")
        mine = of_output(summary, chosen, encoder, wish.encode)
        if wish.save is not None:
            save(mine, wish.save)
        if other is not None:
            distances = _distances(mine, other, wish.reference or "")
    return Evaluation(wish.output, len(chosen), lines, distances)


def _refuse_unlike(other: Statistics, encoder: Encoder, reference: str) -> None:
    if len(other.mean) != encoder.width:
        raise UsageError(
            f"option --reference: {reference} holds embeddings of {len(other.mean)} numbers, the encoder of the output "
            f"gives {encoder.width}; make statistics of the reference with it"
        )
    if other.encoder != encoder.fingerprint:
        raise UsageError(
            f"option --reference: {reference} was made by another encoder ({other.encoder}, not "
            f"{encoder.fingerprint}); make statistics of the reference with the output's"
        )


def _distances(mine: Statistics, other: Statistics, reference: str) -> Distances:
    return Distances(
        reference,
        mine.count,
        other.count,
        len(mine.mean),
        mine.encoder,
        cmmd(mine.sample, other.sample),
        frechet(mine.mean, mine.covariance, other.mean, other.covariance),
    )


def table(found: Evaluation) -> str:
    """All of it as Markdown."""
    columns = ("images of", "score", "images", "mean", *(f"{one} %" for one in PERCENTILES))
    rows = [
        (line.of, line.score, f"{line.images:,}", *(f"{value:.4f}" for value in (line.mean, *line.percentiles)))
        for line in found.scores
    ]
    parts = [f"{found.images:,} images of {found.output}"]
    parts += [tables.table(columns, rows, text=("images of", "score"))] if rows else ["they have no scores"]
    if (far := found.distances) is not None:
        parts.append(
            f"against {far.reference} ({far.reference_images:,} images), by CLIP embeddings of {far.width} numbers\n"
            f"CMMD {far.cmmd:.4f}\nFrechet distance {far.frechet:.4f}"
        )
        if min(far.images, far.reference_images) <= far.width:
            parts[-1] += f"\nwith {far.width} images or fewer the Frechet distance says little; CMMD is the better one"
    return "\n\n".join(parts)
