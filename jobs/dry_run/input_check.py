"""`plan.py --check-inputs`: what a run would find out about its inputs one by one, found out before it starts.

Every image, mask and condition is read and decoded by the code that the run uses, so the verdict is the run's. Masks
that would repaint nearly everything or nothing, and prompts that the text encoders would cut, can be made and are
only told.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from manifests import storage
from manifests.config import RunConfig
from manifests.errors import SUCCESS
from manifests.planning.plan import Plan, Window, batches_of
from manifests.planning.window_summary import FIRST_ROWS, Problem
from manifests.requests import casting
from manifests.requests.columns import cast_requests
from manifests.requests.reading import Reader
from workers.checkpoints import small_tokenizers, trained_weights
from workers.checkpoints.locations import DECODER, DEMO, PRIOR, RANDOM
from workers.stages.inputs import Look, look_at

#: Images looked at at the same time: they wait for storage, or decode in C.
LOOKERS = 16

#: Distinct locations whose verdict is remembered.
REMEMBERED = 100_000

#: A mask that repaints more than this was often made for the older convention, in which black is repainted.
MOSTLY = 0.5

#: Tokens that the text encoders see.
MAX_TOKENS = 77

#: Every token but the two at the ends is made of one byte at least, so shorter prompts are not cut.
_SHORT_BYTES = MAX_TOKENS - 2

Encode = Callable[[Sequence[str]], list[int]]


@dataclass
class InputCheck:
    """What was found.

    Attributes:
        problems: rows whose inputs cannot be used.
        warnings: rows that can be made.
        unusable: how many rows `problems` are about.
    """

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    unusable: int = 0

    def add(self, problems: list[Problem], column: str, reason: str, row: int, example: str) -> None:
        """Count a row; rows come in no order within a window."""
        for place, known in enumerate(problems):
            if (known.column, known.reason) == (column, reason):
                rows = tuple(sorted({*known.rows, row})[:FIRST_ROWS])
                first = example if rows[0] == row else known.example
                problems[place] = Problem(column, reason, known.count + 1, rows, first)
                return
        problems.append(Problem(column, reason, 1, (row,), example))


def check_inputs(config: RunConfig, planned: Plan, tell: Callable[[int], None]) -> InputCheck:
    """Look at the inputs of all rows that can be made.

    Args:
        tell: hears of images to make, as their rows are done with.

    Raises:
        ManifestError: a file has changed, vanished, or is damaged.
    """
    found = InputCheck()
    look = _remembering(config.input_timeout)
    encoders = _encoders(config)
    with ThreadPoolExecutor(LOOKERS, thread_name_prefix="look") as pool:
        for window in planned.windows:
            if set(planned.samples_by_task) != {"text2img"}:
                _check_images(config, window, found, lambda sources: pool.map(look, sources))
            _check_prompts(window, encoders, found)
            shards = planned.shards[window.first_shard : window.first_shard + window.shards]
            tell(sum(shard.samples for shard in shards))
    return found


def _remembering(limit_s: float) -> Callable[[tuple[str | bytes, str]], Look]:
    """`look_at`, which remembers what it saw behind a location."""
    known = lru_cache(REMEMBERED)(lambda content, polarity: look_at(content, polarity, limit_s))

    def look(source: tuple[str | bytes, str]) -> Look:
        # Inline images would fill the memory, and hardly ever come twice.
        return known(*source) if isinstance(source[0], str) else look_at(*source, limit_s)

    return look


def _check_images(
    config: RunConfig,
    window: Window,
    found: InputCheck,
    look: Callable[[Iterable[tuple[str | bytes, str]]], Iterator[Look]],
) -> None:
    for batch in batches_of(config, [window]):
        columns = ["status", "image_index", "manifest_row", "mask_polarity", "image", "mask", "condition_sources"]
        rows = [
            row
            for row in batch.samples.select(columns).to_pylist()
            if row["status"] == SUCCESS and row["image_index"] == 0
        ]
        uses = [(row["manifest_row"], *use) for row in rows for use in _uses(row)]
        unusable = set()
        looks = look((source, polarity) for _, _, source, polarity in uses)
        for (row, column, source, polarity), seen in zip(uses, looks, strict=True):
            shown = storage.shortened(source) if isinstance(source, str) else "inline bytes"
            if seen.problem is not None:
                unusable.add(row)
                reason = seen.problem.split("; ")[0].split(" (")[0]
                found.add(found.problems, column, reason, row, f"{column} ({shown}) {seen.problem}")
            elif column == "mask" and polarity:
                _judge_mask(found, row, shown, polarity, seen)
        found.unusable += len(unusable)


def _uses(row: dict[str, Any]) -> Iterator[tuple[str, str | bytes, str]]:
    """Column, content or location, and polarity ("" but for masks) of each image that a row uses."""
    sources = [("image", row["image"], ""), ("mask", row["mask"], row["mask_polarity"] or "")]
    sources += [("conditions", condition["image"], "") for condition in row["condition_sources"] or []]
    for column, source, polarity in sources:
        if source is not None:
            yield column, source["bytes"] if source["bytes"] is not None else source["path"], polarity


def _judge_mask(found: InputCheck, row: int, shown: str, polarity: str, seen: Look) -> None:
    other = "black" if polarity == "white" else "white"
    if seen.doubt is not None:
        reason = "may mean something else; make what is to be repainted white and the rest black"
        found.add(found.warnings, "mask", reason, row, f"mask ({shown}) {seen.doubt}")
    elif seen.repainted == 0:
        # Masks that show something fail, so that this one is of one colour.
        reason = "repaints nothing; it is of one colour"
        found.add(found.warnings, "mask", reason, row, f"mask ({shown}) is nowhere {polarity}")
    elif seen.repainted is not None and seen.repainted > MOSTLY:
        reason = f"repaints most of the image; if that is not meant, mask_polarity should be '{other}'"
        example = f"mask ({shown}) repaints {100 * seen.repainted:.0f} % of the image"
        found.add(found.warnings, "mask", reason, row, example)


def _check_prompts(window: Window, encoders: Sequence[tuple[str, Encode]], found: InputCheck) -> None:
    with Reader(("task", "prompt")) as reader:
        prompts = cast_requests(reader.read(window.pieces).tables).columns["prompt"]
    rows = casting.positions(pc.fill_null(pc.greater(pc.binary_length(prompts), _SHORT_BYTES), False))
    texts = prompts.take(rows).to_pylist()
    if not texts:
        return
    lengths = [encode(texts) for _, encode in encoders]
    for row, text, *counts in zip(rows.tolist(), texts, *lengths, strict=True):
        most = max(counts)
        if most > MAX_TOKENS:
            who = encoders[counts.index(most)][0]
            example = f"prompt: {casting.shown(text)} has {most} tokens for {who}"
            reason = f"has more than {MAX_TOKENS} tokens; its end is not seen"
            found.add(found.warnings, "prompt", reason, window.first_row + row, example)


def _encoders(config: RunConfig) -> list[tuple[str, Encode]]:
    """Token counters of the checkpoint's two text encoders."""
    # It misses the frameworks that run models, which nobody needs here, and takes two seconds to import.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from transformers import CLIPTokenizerFast, XLMRobertaTokenizerFast

    def load(kind: Any, folder: Path) -> Encode:
        backend = kind.from_pretrained(folder).backend_tokenizer
        return lambda texts: [len(encoding.ids) for encoding in backend.encode_batch_fast(list(texts))]

    with storage.temporary_folder("tokenizers-") as made:
        if config.checkpoint == RANDOM:
            clip, xlmr = Path(made) / "clip", Path(made) / "xlmr"
            small_tokenizers.write_clip(clip)
            small_tokenizers.write_xlmr(xlmr)
        elif config.checkpoint == DEMO:
            clip, xlmr = trained_weights.TOKENIZERS
        else:
            clip, xlmr = (Path(config.checkpoint) / name / "tokenizer" for name in (PRIOR, DECODER))
        return [("the prior", load(CLIPTokenizerFast, clip)), ("the decoder", load(XLMRobertaTokenizerFast, xlmr))]
