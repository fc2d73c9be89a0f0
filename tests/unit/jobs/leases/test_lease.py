"""One job at a time on an output: the second is refused, a dead one's lease is taken over, shares go side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.leases import fence, lease
from jobs.leases.fence import LeaseLostError
from jobs.leases.files import Holder, Place, holder_of, places
from jobs.leases.lease import Lease
from manifests import storage
from manifests.errors import StorageError, UsageError

WHOLE = (0, 1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.05)
    monkeypatch.setattr(lease, "LOOK_S", 0.02)
    monkeypatch.setattr(lease, "STALE_S", 0.5)
    monkeypatch.setattr(lease, "FRESH_S", 0.1)
    monkeypatch.setattr(fence, "FRESH_S", 0.1)


@pytest.fixture(params=["disk", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        request.getfixturevalue("s3")
        return "s3://bucket/out"
    return str(tmp_path)


def url_of(output: Path | str, epoch: int = 1) -> str:
    return Place(epoch, WHOLE).url(str(output))


def leave(output: Path | str, epoch: int = 1, **changes: object) -> None:
    """A lease that somebody has left, of another machine, where nobody can look for the process."""
    with Lease(str(output), WHOLE, print):
        held = Holder.model_validate_json(storage.read_bytes(url_of(output)))
    there = {"machine": "elsewhere", "host": "far", "token": "t", **changes}
    storage.write_atomic(url_of(output, epoch), held.model_copy(update=there).model_dump_json().encode())


def check_until_told(mine: Lease) -> None:
    """The next beat meets what happened to the lease."""
    while True:
        mine.check()
        time.sleep(0.01)


def test_the_second_job_is_told_who_works_there(output: str) -> None:
    with (
        Lease(output, WHOLE, print),
        pytest.raises(UsageError, match=r"another job works on .*: process \d+ on .*, since .* UTC.*--shards"),
    ):
        Lease(output, WHOLE, print).__enter__()
    assert holder_of(output, WHOLE) is None
    with Lease(output, WHOLE, print):
        assert holder_of(output, WHOLE) is not None
    assert [place.epoch for place in places(output)] == [2], "an epoch is never used again"


def test_the_lease_of_a_killed_job_on_this_machine_is_taken_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "STALE_S", 60.0)
    monkeypatch.setattr(lease, "FRESH_S", 60.0)
    with Lease(str(tmp_path), WHOLE, print):
        left = storage.read_bytes(url_of(tmp_path))
    dead = Holder.model_validate_json(left).model_copy(update={"process_started": "1", "token": "t"})
    storage.write_atomic(url_of(tmp_path), dead.model_dump_json().encode())
    told: list[str] = []
    with Lease(str(tmp_path), WHOLE, told.append):
        assert told == [], "nobody waits for a sign of life"


def test_a_lease_of_another_machine_is_broken_when_its_beat_stands_still(output: str) -> None:
    leave(output)
    began = time.monotonic()
    with Lease(output, WHOLE, print):
        assert time.monotonic() - began >= 0.5 + 0.1, "a beat, and what its processes may still believe"


def test_a_job_of_another_machine_is_known_to_live_by_its_beat(tmp_path: Path) -> None:
    leave(tmp_path)
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        held = Holder.model_validate_json(storage.read_bytes(url_of(tmp_path)))
        storage.write_atomic(url_of(tmp_path), held.model_copy(update={"beat": 7}).model_dump_json().encode())

    with pytest.raises(UsageError, match="on far, since"):
        Lease(str(tmp_path), WHOLE, tell).__enter__()
    assert "waiting for a sign of life" in told[0]


def test_a_job_whose_lease_was_taken_over_is_told_and_writes_nothing_more(output: str) -> None:
    leave(output)
    with Lease(output, WHOLE, print) as mine:
        mine.check()
        file = storage.join(output, "00000_stats.json")
        with storage.fenced(mine.fence.check):
            storage.write_atomic(file, b"mine")
        held = Holder.model_validate_json(storage.read_bytes(url_of(output, 2)))
        later = held.model_copy(update={"host": "far", "token": "later"}).model_dump_json().encode()
        assert storage.create(url_of(output, 3), later)
        time.sleep(0.1)
        for change in (lambda: storage.write_atomic(file, b"late"), lambda: storage.remove(file)):
            with (
                storage.fenced(mine.fence.check),
                pytest.raises(LeaseLostError, match=r"taken over by process .* on far"),
            ):
                change()
        assert storage.read_bytes(file) == b"mine"
        with pytest.raises(LeaseLostError, match=r"by process .* on far"):
            check_until_told(mine)
    # The other's is not ours to give back.
    assert storage.read_bytes(url_of(output, 3)) == later


def test_a_lease_that_was_taken_over_and_given_back_is_lost_too(output: str) -> None:
    with Lease(output, WHOLE, print) as mine:
        held = Holder.model_validate_json(storage.read_bytes(url_of(output)))
        mine._ended.set()  # it sleeps, and so does its heart
        leave_of = held.model_copy(update={"machine": "elsewhere", "token": held.token})
        storage.write_atomic(url_of(output), leave_of.model_dump_json().encode())
        with Lease(output, WHOLE, print):
            pass
        # What it had in hand when it fell asleep: its own beat.
        mine._write()
        with storage.fenced(mine.fence.check), pytest.raises(LeaseLostError):
            storage.write_atomic(storage.join(output, "_SUCCESS"), b"")
    with Lease(output, WHOLE, print):
        pass


def test_shares_of_one_plan_go_side_by_side_and_no_share_twice(tmp_path: Path) -> None:
    output = str(tmp_path)
    with Lease(output, (0, 3), print), Lease(output, (2, 3), print):
        for share in ((2, 3), WHOLE, (0, 2)):
            with pytest.raises(UsageError, match="another job works on"):
                Lease(output, share, print).__enter__()


def at_once(output: str, monkeypatch: pytest.MonkeyPatch, shares: list[tuple[int, int]]) -> list[Lease]:
    """Leases that are taken by jobs that all saw none before any wrote one."""
    got: list[Lease] = []
    looked = threading.Barrier(len(shares))
    seen = threading.local()
    look = lease.files.places

    def look_together(place: str) -> list[Place]:
        found = look(place)
        if not hasattr(seen, "once"):
            seen.once = True
            looked.wait()
        return found

    monkeypatch.setattr(lease.files, "places", look_together)

    def start(share: tuple[int, int]) -> None:
        candidate = Lease(output, share, lambda text: None)
        try:
            got.append(candidate.__enter__())
        except UsageError:
            return

    threads = [threading.Thread(target=start, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in got:
        one.__exit__(None, None, None)
    return got


def test_of_many_that_start_at_once_exactly_one_gets_it(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Storage decides, not the moment: nobody waits for the others to have written.
    monkeypatch.setattr(lease, "LOOK_S", 0.0)
    assert len(at_once(output, monkeypatch, [WHOLE] * 6)) == 1


def test_where_storage_does_not_decide_at_most_one_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "is_exclusive", lambda folder: False)
    written = threading.Barrier(6)
    monkeypatch.setattr(lease, "time", SimpleNamespace(sleep=lambda seconds: written.wait(), monotonic=time.monotonic))
    assert len(at_once(str(tmp_path), monkeypatch, [WHOLE] * 6)) <= 1


def test_of_two_that_cut_the_plan_differently_at_most_one_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = threading.Barrier(2)
    monkeypatch.setattr(lease, "time", SimpleNamespace(sleep=lambda seconds: written.wait(), monotonic=time.monotonic))
    assert len(at_once(str(tmp_path), monkeypatch, [WHOLE, (0, 2)])) <= 1


def test_a_lease_of_an_earlier_version_is_respected_and_replaced(tmp_path: Path) -> None:
    with Lease(str(tmp_path), WHOLE, print):
        living = storage.read_bytes(url_of(tmp_path))
    storage.remove(url_of(tmp_path))
    storage.write_atomic(url_of(tmp_path, 0), living)
    with pytest.raises(UsageError, match="another job works on"):
        Lease(str(tmp_path), WHOLE, print).__enter__()
    dead = Holder.model_validate_json(living).model_copy(update={"process_started": "1"})
    storage.write_atomic(url_of(tmp_path, 0), dead.model_dump_json().encode())
    with Lease(str(tmp_path), WHOLE, print):
        assert [place.epoch for place in places(str(tmp_path))] == [1]


@pytest.mark.parametrize("clock", ["time", "monotonic"])
def test_a_process_asks_again_when_either_clock_says_that_it_slept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    now = {"time": 1000.0, "monotonic": 5.0}
    sources = {name: (lambda name=name: now[name]) for name in now}
    monkeypatch.setattr(fence, "time", SimpleNamespace(**sources))
    monkeypatch.setattr(fence, "FRESH_S", 5.0)
    asked: list[str] = []
    look: Callable[[str], list[Place]] = fence.places
    monkeypatch.setattr(fence, "places", lambda output: asked.append(output) or look(output))
    with Lease(str(tmp_path), WHOLE, print) as held:
        asked.clear()
        mine = held.fence
        for _ in range(10):
            mine.check()
        assert len(asked) == 1, "one look for many writes"
        now[clock] += 6
        mine.check()
        assert len(asked) == 2
        now["time"] -= 3600
        mine.check()
        assert len(asked) == 3, "a clock that was put back says nothing"


@pytest.mark.parametrize("other", ["empty", "of another run", "nowhere"])
def test_an_output_whose_link_is_pointed_elsewhere_is_told_at_once_and_nothing_is_changed_there(
    tmp_path: Path, other: str
) -> None:
    here, there, link = tmp_path / "here", tmp_path / "there", tmp_path / "link"
    here.mkdir()
    link.symlink_to(here)
    if other != "nowhere":
        there.mkdir()
    if other == "of another run":
        with Lease(str(there), WHOLE, print):
            storage.write_atomic(str(there / "00000.tar"), b"theirs")
    before = {path: path.read_bytes() for path in there.rglob("*") if path.is_file()}
    with Lease(str(link), WHOLE, print) as mine, storage.fenced(mine.fence.check):
        storage.write_atomic(str(link / "00000.tar"), b"ours")
        link.unlink()
        link.symlink_to(there)
        for change in (
            lambda: storage.write_atomic(str(link / "00000.tar"), b"ours"),
            lambda: storage.remove(str(link / "00000.tar")),
        ):
            with pytest.raises(StorageError) as refused:
                change()
            if other != "nowhere":
                assert "is not the folder any more that this job has begun to write to" in str(refused.value)
        with pytest.raises(LeaseLostError, match="what was made lies where it was"):
            check_until_told(mine)
    assert {path: path.read_bytes() for path in there.rglob("*") if path.is_file()} == before
    assert (here / "00000.tar").read_bytes() == b"ours"


def test_any_storage_holds_leases_alike() -> None:
    with Lease("memory://leases/out", WHOLE, print), pytest.raises(UsageError, match="another job works on"):
        Lease("memory://leases/out", WHOLE, print).__enter__()
