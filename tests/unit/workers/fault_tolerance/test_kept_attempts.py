"""The books of attempts outlive their process: whoever goes on from the file knows what the last one knew."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from manifests.errors import UsageError
from workers.fault_tolerance.attempts import START_FAILURES, Attempts, News, Worker
from workers.fault_tolerance.kept_attempts import CALLS, Journal, KeptAttempts

PLACES = [("decoder", 0, number) for number in range(6)]

#: No process ever ends with the same words for two reasons here.
FULL = "out of memory: Ray ended it to keep its node alive"


def no_nodes() -> set[str]:
    return set()


def for_memory(worker_id: str) -> str:
    return FULL


def worker(number: int) -> Worker:
    return Worker(f"w{number}", f"actor-{number % 3}", "node", f"npu-{number % 3}", f"NPU {number % 3} of here")


def kept(path: Path, number: int = 0) -> KeptAttempts:
    """What Ray starts first, and in place of a process that was lost."""
    return KeptAttempts(str(path), lambda: Worker(f"k{number}", "k", "node", "cpu", "here"), no_nodes, for_memory)


def story(order: random.Random, length: int) -> Generator[tuple[str, tuple[Any, ...]], Any, None]:
    """Calls as guards make them, by processes of which some die; is sent the answers."""
    for number in range(length):
        who, place = worker(number), order.choice(PLACES)
        yield "starting", ("decoder", who)
        if order.random() < 0.1:
            yield "start_failed", ("decoder", who, "no weights", False)
            continue
        yield "ready", ("decoder", who, {"device": who.name})
        orders = yield "begin", (place, who, True)
        if orders.taken_out is not None:
            continue
        end = order.choice(["end", "row", "probe", "dies", "hangs"])
        if end == "end":
            yield "end", (place,)
        if end in ("row", "probe"):
            yield "trying", (place, "probe" if end == "probe" else order.randrange(4))
        if end == "hangs":
            yield "say", (who.id, "did not finish within 5 s")
        if order.random() < 0.05:
            yield "compiled", ("decoder", who, [{"part": "unet", "shape": [number], "seconds": 1.5}])
        if order.random() < 0.02:
            yield "pipeline_ended", ()


def known(books: Attempts) -> tuple[News, Any, Any]:
    """All that can be asked, less what is measured by the clock."""
    news = books.news()
    lost = [loss for loss in news.lost if not loss.id.startswith("k")]
    counts = {cause: sum(loss.cause == cause for loss in lost) for cause in news.lost_by_cause}
    counts = {cause: count for cause, count in counts.items() if count}
    news = dataclasses.replace(news, trouble=None, seconds={}, lost=lost, lost_by_cause=counts)
    return news, books.devices(), books.compilations()


@pytest.mark.parametrize("seed", range(20))
def test_whoever_goes_on_knows_what_would_be_known_without_a_loss(seed: int, tmp_path: Path) -> None:
    order = random.Random(seed)
    books, there = kept(tmp_path / "books"), Attempts(no_nodes, for_memory)
    calls, deaths = story(order, 60), 0
    call = next(calls)
    with contextlib.suppress(StopIteration):
        while True:
            name, arguments = call
            expected = getattr(there, name)(*arguments)
            assert getattr(books, name)(*arguments) == expected
            if order.random() < 0.2:
                deaths += 1
                books = kept(tmp_path / "books", deaths)
                if order.random() < 0.5:
                    # The answer was lost as well, so that Ray asks again.
                    assert getattr(books, name)(*arguments) == expected
            call = calls.send(expected)
    assert known(books) == known(there)
    own = [loss for loss in books.news().lost if loss.id.startswith("k")]
    assert [loss.id for loss in own] == [f"k{number}" for number in range(deaths)]


def test_the_loss_is_told_and_counted_like_any_other(tmp_path: Path) -> None:
    kept(tmp_path / "books")
    books = kept(tmp_path / "books", 1)
    (loss,) = books.news().lost
    assert loss.words.startswith(f"a worker of attempts was lost on here ({FULL}); another one goes on")
    assert books.news().lost_by_cause == {"out of memory": 1}


def test_a_start_that_fails_counts_once_however_often_it_is_told() -> None:
    books = Attempts(no_nodes, lambda worker: "")
    for _ in range(START_FAILURES):
        books.start_failed("decoder", worker(0), "no weights", unusable=False)
    assert books.news().trouble is None


def test_arguments_by_name_are_kept_too(tmp_path: Path) -> None:
    kept(tmp_path / "books").start_failed("decoder", worker(0), "no weights", unusable=True)
    trouble = kept(tmp_path / "books", 1).news().trouble
    assert isinstance(trouble, UsageError)
    assert "no weights" in str(trouble)


def test_a_call_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "books"
    books = kept(path)
    books.begin(PLACES[0], worker(0), True)
    before = path.stat().st_size
    books.end(PLACES[0])
    for size in range(before + 1, path.stat().st_size):
        copy = tmp_path / "cut"
        copy.write_bytes(path.read_bytes()[:size])
        assert kept(copy, 1).news().working == {"decoder": 1}


def test_the_file_does_not_grow_with_the_run(tmp_path: Path) -> None:
    path = tmp_path / "books"
    books = kept(path)
    sizes = []
    for _ in range(3 * CALLS // 2):
        books.begin(PLACES[0], worker(0), True)
        books.end(PLACES[0])
        sizes.append(path.stat().st_size)
    assert max(sizes[len(sizes) // 2 :]) <= max(sizes[: len(sizes) // 2]) + 10_000
    assert kept(path, 1).news().working == {}


def test_a_disk_that_is_full_ends_the_writing_and_is_told_and_nothing_old_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "books"
    books = kept(path)
    books.begin(PLACES[0], worker(0), True)
    books._journal.close()
    books._journal._file = open("/dev/full", "wb")  # noqa: SIM115  the journal closes it
    books.end(PLACES[0])
    assert books.news().working == {}
    assert "No space left on device" in books.news().fallbacks[0]
    assert not path.exists()
    books.begin(PLACES[0], worker(1), True)
    assert kept(path, 1).news().lost == []


def test_what_was_removed_is_not_found(tmp_path: Path) -> None:
    path = tmp_path / "books"
    kept(path)
    Journal(str(path)).remove()
    assert Journal(str(path)).read() is None
