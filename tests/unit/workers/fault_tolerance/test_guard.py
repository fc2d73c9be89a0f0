"""The guard around calls that may take their process along; its books are asked directly, without Ray."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from manifests.batch import Batch
from manifests.errors import CheckpointError, IncompleteRunError, RowError
from tests.unit.workers.sample_batches import make_batch
from workers.fault_tolerance import guard as guard_module
from workers.fault_tolerance.attempts import Attempts, Worker
from workers.fault_tolerance.guard import GivenUpError, Guard


class Died(BaseException):
    """What a test raises where a process would be gone, as Python does in one that is told to end."""


@pytest.fixture
def books(monkeypatch: pytest.MonkeyPatch) -> Attempts:
    """Books that the guard reaches without Ray; every `run` is a new process."""
    found = Attempts(set, lambda worker: "")
    numbers = itertools.count()

    def this_worker(stage: str) -> Worker:
        return Worker(str(next(numbers)), "", "node", "node/decoder", "the CPU of here", npu=False)

    def ask(self: Guard, method: str, *arguments: Any) -> Any:
        return getattr(found, method)(*arguments)

    monkeypatch.setattr(guard_module, "this_worker", this_worker)
    monkeypatch.setattr(Guard, "_ask", ask)
    monkeypatch.setattr(guard_module, "HOLD_S", 0.0)
    return found


def guard(limit: float = 60) -> Guard:
    return Guard("decoder", "failed_to_generate", limit, attempts="the books")


def batch_of(*prompts: str) -> Batch:
    return make_batch("text2img", [{"prompt": prompt} for prompt in prompts])


def deadly(sizes: list[int]) -> Callable[[Batch], Batch]:
    """Work that adds a column, and dies of the prompt 'kill'."""

    def work(batch: Batch) -> Batch:
        sizes.append(batch.samples.num_rows)
        prompts = batch.values("prompt", batch.pending)
        if "kill" in prompts:
            raise Died
        return batch.add("made", pa.string(), dict(zip(batch.pending, prompts, strict=True)))

    return work


def until_it_lives(
    batch: Batch, work: Callable[[Batch], Batch], probe: Callable[[], object] | None
) -> tuple[Batch, int]:
    """What Ray does: the batch once more, in a new process, after every death."""
    for deaths in range(20):
        try:
            return guard().run(batch, work, probe), deaths
        except Died:
            continue
    raise AssertionError("it is tried for ever")


def test_killers_fail_and_the_others_are_made_in_the_same_shape(books: Attempts) -> None:
    sizes: list[int] = []
    probed: list[int] = []
    before = batch_of("a", "kill", "b", "kill").fail({0: RowError("failed_to_embed", "earlier")})
    batch, deaths = until_it_lives(before, deadly(sizes), lambda: probed.append(1))
    assert deaths == 4
    assert probed == [1]
    assert batch.samples.column("status").to_pylist() == [
        "failed_to_embed",
        "failed_to_generate",
        "success",
        "failed_to_generate",
    ]
    assert batch.samples.column("made").to_pylist() == [None, None, "b", None]
    assert "killed its worker" in batch.samples.column("error_message").to_pylist()[3]
    assert sizes == [4, 4, 3, 3, 3, 3]


def test_a_stage_without_a_device_tries_rows_as_they_are(books: Attempts) -> None:
    sizes: list[int] = []
    batch, _ = until_it_lives(batch_of("a", "kill", "b"), deadly(sizes), None)
    assert batch.pending == [0, 2]
    assert sizes == [3, 3, 1, 1, 1, 1]


def test_where_memory_is_short_a_batch_is_made_in_calls_of_fewer_samples(books: Attempts) -> None:
    books._shortage._at_most["decoder"] = 2
    sizes: list[int] = []
    before = batch_of("a", "b", "c", "d", "e", "f", "g").fail(
        {row: RowError("failed_to_embed", "earlier") for row in (2, 3, 4)}
    )
    batch, _ = until_it_lives(before, deadly(sizes), lambda: None)
    assert batch.samples.column("made").to_pylist() == ["a", "b", None, None, None, "f", "g"]
    assert sizes == [2, 2, 1]


def test_rows_alone_fill_no_more_than_such_a_call(books: Attempts) -> None:
    books._shortage._at_most["decoder"] = 2
    sizes: list[int] = []
    batch, _ = until_it_lives(batch_of("a", "kill", "c", "d"), deadly(sizes), lambda: None)
    assert batch.samples.column("made").to_pylist() == ["a", None, "c", "d"]
    assert set(sizes) == {2}


def test_a_device_that_dies_on_the_probe_leaves_the_batch_without_blame(books: Attempts) -> None:
    def probe() -> None:
        raise Died

    with pytest.raises(GivenUpError, match="known to be good"):
        until_it_lives(batch_of("kill", "kill"), deadly([]), probe)
    assert isinstance(books.news().trouble, IncompleteRunError)


def test_where_every_row_fails_the_device_is_tried(books: Attempts) -> None:
    def work(batch: Batch) -> Batch:
        return batch.fail(dict.fromkeys(batch.pending, RowError("failed_to_generate", "RuntimeError: device")))

    assert guard().run(batch_of("a"), work, lambda: None).pending == []

    def probe() -> None:
        raise RuntimeError("device lost\nstack")

    with pytest.raises(GivenUpError, match=r"RuntimeError: device lost$"):
        guard().run(batch_of("a"), work, probe)


def test_an_exception_is_no_death(books: Attempts) -> None:
    def work(batch: Batch) -> Batch:
        raise ZeroDivisionError

    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            guard().run(batch_of("a"), work)
    batch, deaths = until_it_lives(batch_of("a"), deadly([]), None)
    assert (batch.pending, deaths) == ([0], 0)


def test_what_keeps_a_model_from_loading_is_told(books: Attempts) -> None:
    with pytest.raises(CheckpointError), guard().starting():
        raise CheckpointError("another model")
    assert (
        str(books.news().trouble) == "the decoder pool cannot start on the CPU of here: CheckpointError: another model"
    )


def test_a_stage_on_its_own_is_not_guarded() -> None:
    alone = Guard("decoder", "failed_to_generate", 1.0)
    with alone.starting():
        assert alone.run(batch_of("a"), deadly([])).pending == [0]


@pytest.mark.parametrize(
    ("call", "second", "code"),
    [("time.sleep(60)", 30, guard_module.HUNG), ("re.match('(a+)+$', 'a' * 60 + 'b')", 0.5, 1)],
    ids=["it waits", "it keeps Python's lock"],
)
def test_a_call_that_hangs_is_ended(call: str, second: float, code: int) -> None:
    script = f"""
import re, time
from workers.fault_tolerance import guard
guard.SECOND_WATCHDOG_S = {second}
worker = guard.Worker("w", "", "n", "d", "name")
with guard.Guard("decoder", "failed_to_generate", 0.5)._watched(worker, 0.5):
    {call}
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert ended.returncode == code, ended.stderr


def test_a_death_while_a_shape_is_compiled_is_the_batchs_and_its_rows_compile_for_themselves(books: Attempts) -> None:
    compiled: list[int] = []

    def compile_shape() -> None:
        compiled.append(1)
        raise Died

    sizes: list[int] = []

    def work(batch: Batch) -> Batch:
        guard().prepare(batch, compile_shape)
        return guard().run(batch, deadly(sizes), lambda: None)

    for _ in range(20):
        try:
            batch = work(batch_of("a", "b"))
            break
        except Died:
            continue
    assert len(compiled) == 2
    assert batch.pending == [0, 1]
    assert sizes == [2, 2], "one call for each row, filled up to the batch's shape"


def test_what_compiling_raises_is_left_to_the_batch_and_its_seconds_to_nobody(
    books: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(guard_module, "time", SimpleNamespace(perf_counter=lambda: now, monotonic=lambda: now))

    def compile_shape() -> None:
        nonlocal now
        time.sleep(0.3)  # longer than the limit of a call
        now += 0.3
        raise RuntimeError("no such kernel")

    guard(limit=0.1).prepare(batch_of("a"), compile_shape)

    def work(batch: Batch) -> Batch:
        nonlocal now
        now += 0.2
        return batch

    done = guard().run(batch_of("a"), work, lambda: None)
    assert done.pending == [0]
    assert done.seconds["decoder"] == pytest.approx(0.2)
