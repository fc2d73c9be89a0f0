"""One job at a time on an output: the second is refused, a dead one's lease is taken over, shares go side by side."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.run import lease
from jobs.run.lease import Lease, LeaseLostError
from manifests import storage
from manifests.errors import UsageError

WHOLE = (0, 1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.05)
    monkeypatch.setattr(lease, "LOOK_S", 0.02)
    monkeypatch.setattr(lease, "STALE_S", 0.5)


def other_machine(url: str, **changes: object) -> None:
    """Make a lease look like one of another machine, where nobody can look for the process."""
    holder = lease.Holder.model_validate_json(storage.read_bytes(url))
    changed = holder.model_copy(update={"machine": "elsewhere", "host": "far", "token": "t", **changes})
    storage.write_atomic(url, changed.model_dump_json().encode())


def check_until_told(mine: Lease) -> None:
    """The next beat meets what happened to the lease."""
    while True:
        mine.check()
        time.sleep(0.01)


def url_of(output: Path, name: str = "00000-of-00001.json") -> str:
    return str(output / "_run" / "leases" / name)


def test_the_second_job_is_told_who_works_there(tmp_path: Path) -> None:
    with (
        Lease(str(tmp_path), WHOLE, print),
        pytest.raises(UsageError, match=r"another job works on .*: process \d+ on .*, since .* UTC.*--shards"),
    ):
        Lease(str(tmp_path), WHOLE, print).__enter__()
    with Lease(str(tmp_path), WHOLE, print):
        pass
    assert storage.list_names(str(tmp_path / "_run" / "leases")) == []


def test_the_lease_of_a_killed_job_on_this_machine_is_taken_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "STALE_S", 60.0)
    with Lease(str(tmp_path), WHOLE, print):
        left = storage.read_bytes(url_of(tmp_path))
    dead = lease.Holder.model_validate_json(left).model_copy(update={"process_started": "1", "token": "t"})
    storage.write_atomic(url_of(tmp_path), dead.model_dump_json().encode())
    told: list[str] = []
    with Lease(str(tmp_path), WHOLE, told.append):
        assert told == [], "nobody waits for a sign of life"


def test_a_lease_of_another_machine_is_broken_when_its_beat_stands_still(tmp_path: Path) -> None:
    with Lease(str(tmp_path), WHOLE, print):
        left = storage.read_bytes(url_of(tmp_path))
    storage.write_atomic(url_of(tmp_path), left)
    other_machine(url_of(tmp_path))
    began = time.monotonic()
    with Lease(str(tmp_path), WHOLE, print):
        assert time.monotonic() - began >= 0.5


def test_a_job_of_another_machine_is_known_to_live_by_its_beat(tmp_path: Path) -> None:
    with Lease(str(tmp_path), WHOLE, print):
        left = storage.read_bytes(url_of(tmp_path))
    storage.write_atomic(url_of(tmp_path), left)
    other_machine(url_of(tmp_path))
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        other_machine(url_of(tmp_path), beat=7)

    with pytest.raises(UsageError, match="on far, since"):
        Lease(str(tmp_path), WHOLE, tell).__enter__()
    assert "waiting for a sign of life" in told[0]


def test_a_job_whose_lease_was_taken_over_is_told(tmp_path: Path) -> None:
    with Lease(str(tmp_path), WHOLE, print) as mine:
        mine.check()
        other_machine(url_of(tmp_path))
        with pytest.raises(LeaseLostError, match=r"taken over by process .* on far"):
            check_until_told(mine)
    # It is not ours any more to give back.
    assert storage.exists(url_of(tmp_path))


def test_shares_of_one_plan_go_side_by_side_and_no_share_twice(tmp_path: Path) -> None:
    output = str(tmp_path)
    with Lease(output, (0, 3), print), Lease(output, (2, 3), print):
        with pytest.raises(UsageError, match="another job works on"):
            Lease(output, (2, 3), print).__enter__()
        with pytest.raises(UsageError, match="another job works on"):
            Lease(output, WHOLE, print).__enter__()
        with pytest.raises(UsageError, match="another job works on"):
            Lease(output, (0, 2), print).__enter__()


def test_of_many_that_start_at_once_at_most_one_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[Lease] = []
    together = threading.Barrier(6)
    look = Lease._wait_for_others

    def look_together(candidate: Lease) -> None:
        look(candidate)
        together.wait()

    # All have seen no lease before any writes one, and all have written theirs before any looks again.
    monkeypatch.setattr(Lease, "_wait_for_others", look_together)
    monkeypatch.setattr(lease, "time", SimpleNamespace(sleep=lambda seconds: together.wait()))

    def start() -> None:
        candidate = Lease(str(tmp_path), WHOLE, lambda text: None)
        try:
            got.append(candidate.__enter__())
        except UsageError:
            return

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) <= 1
    for one in got:
        one.__exit__(None, None, None)


def test_an_object_store_holds_leases_alike() -> None:
    with Lease("memory://leases/out", WHOLE, print), pytest.raises(UsageError, match="another job works on"):
        Lease("memory://leases/out", WHOLE, print).__enter__()
