"""Finding the samples that fail: a batch's device call, repeated one by one only when the whole call raised."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from manifests.errors import RowError, RowStatus

Result = TypeVar("Result")
_logger = logging.getLogger(__name__)


def call_or_isolate(
    call: Callable[[Sequence[int]], Sequence[Result]], positions: Sequence[int], status: RowStatus
) -> tuple[dict[int, Result], dict[int, RowError]]:
    """Run a call for all samples; if it raises, run it for each alone, so that only those that fail are failed.

    The noise contract makes the second way give the same images as the first. A sample that is repeated takes its
    batch-mates' places as well, so that the call keeps its shape: nothing is compiled anew, and no bit is rounded
    otherwise. Only a sample that raises even so is tried at batch 1, which may fit where a whole batch does not.

    Args:
        call: takes positions in the batch, maybe one several times, and returns one result per position.
        positions: samples to work on.
        status: what a sample that fails alone gets.

    Returns:
        Results and errors by position; together they cover all positions.
    """
    try:
        return dict(zip(positions, call(positions), strict=True)), {}
    except Exception as error:  # whatever a device call raises must not end the run
        if len(positions) == 1:
            return {}, {positions[0]: _row_error(error, status)}
        _logger.warning("a batch of %d failed and is repeated sample by sample: %s", len(positions), error)
    results: dict[int, Result] = {}
    errors: dict[int, RowError] = {}
    for place, position in enumerate(positions):
        try:
            results[position] = call([position] * len(positions))[place]
        except Exception:
            done, failed = call_or_isolate(call, [position], status)
            results |= done
            errors |= failed
    return results, errors


def _row_error(error: Exception, status: RowStatus) -> RowError:
    if isinstance(error, RowError):
        return error
    lines = str(error).strip().splitlines()
    # MindSpore's messages go on with a C++ call stack that helps nobody who reads an index.
    return RowError(status, f"{type(error).__name__}: {lines[0] if lines else 'no message'}")
