"""Whether a job lives, has died or is done, told from its files: on its machine, elsewhere, and of several shares."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from jobs.leases import lease
from jobs.leases.files import Holder
from jobs.leases.lease import STALE_S, Lease
from jobs.monitoring.status_file import Status, read_statuses
from jobs.run.watching import Watcher
from manifests import storage
from manifests.errors import IncompleteRunError, UsageError
from tests.unit.finished_run import make_config
from tests.unit.finished_run import run as finish
from tests.unit.jobs.monitoring.clocks import Clock
from tests.unit.jobs.monitoring.sample_facts import begun_status, facts

WHOLE = (0, 1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LOOK_S", 0.02)


def lease_url(output: str, share: tuple[int, int] = WHOLE) -> str:
    return storage.join(output, "_run/leases/{:05d}-of-{:05d}-000001.json".format(*share))


def status_url(output: str) -> str:
    return storage.join(output, "_run/status.json")


def rewrite(output: str, **changes: object) -> None:
    """The status, changed."""
    status = Status.model_validate_json(storage.read_bytes(status_url(output)))
    storage.write_atomic(status_url(output), status.model_copy(update=changes).model_dump_json().encode())


@pytest.fixture
def output(tmp_path: Path) -> str:
    return str(tmp_path / "out")


@pytest.fixture
def left_behind(output: str) -> str:
    """An output whose job has just vanished without a word: its last status and its lease."""
    with Lease(output, WHOLE, print):
        held = storage.read_bytes(lease_url(output))
        with begun_status(output, WHOLE, print):
            while not read_statuses(output):
                pass
    storage.write_atomic(lease_url(output), held)
    rewrite(output, state="running")
    return output


def held_elsewhere(output: str) -> None:
    """The lease as of another machine, whose processes nobody sees from here."""
    holder = Holder.model_validate_json(storage.read_bytes(lease_url(output)))
    storage.write_atomic(
        lease_url(output), holder.model_copy(update={"machine": "elsewhere"}).model_dump_json().encode()
    )


def minutes_ago(minutes: float) -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=minutes)


def test_a_job_lives_while_its_process_does_however_old_its_status(left_behind: str) -> None:
    rewrite(left_behind, updated=minutes_ago(60))
    state = Watcher(left_behind).look()
    assert (state.state, state.words) == ("running", "running: making images")
    assert state.facts == facts()


def test_a_killed_job_is_known_to_be_dead_on_its_machine(left_behind: str) -> None:
    holder = Holder.model_validate_json(storage.read_bytes(lease_url(left_behind)))
    dead = holder.model_copy(update={"process_started": "1"})
    storage.write_atomic(lease_url(left_behind), dead.model_dump_json().encode())
    state = Watcher(left_behind).look()
    assert state.state == "died"
    assert state.words == "died while making images: its process is gone; the same command goes on from there"
    assert state.facts.left is None
    assert state.facts.pools == ()


def test_elsewhere_a_job_lives_while_its_status_is_young(left_behind: str) -> None:
    held_elsewhere(left_behind)
    assert Watcher(left_behind).look().state == "running"
    rewrite(left_behind, updated=minutes_ago(5))
    clock = Clock()
    state = Watcher(left_behind, clock, clock.sleep).look()
    assert state.state == "died"
    assert "no sign of life for 5m" in state.words
    assert clock.now - 100 < 60, "nobody waits for long"


@pytest.mark.parametrize("behind", [60, -60])
def test_a_job_whose_clock_is_an_hour_off_lives_at_the_first_look(left_behind: str, behind: int) -> None:
    held_elsewhere(left_behind)
    rewrite(left_behind, updated=minutes_ago(behind), beat=7)
    clock = Clock()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.now - 100 > 4:
            rewrite(left_behind, updated=minutes_ago(behind), beat=8)

    state = Watcher(left_behind, clock, sleep).look()
    assert (state.state, state.words) == ("running", "running: making images")


def test_who_watches_trusts_a_beat_that_moves_more_than_clocks(left_behind: str) -> None:
    held_elsewhere(left_behind)
    clock = Clock()
    watcher = Watcher(left_behind, clock, clock.sleep)
    rewrite(left_behind, updated=minutes_ago(60), beat=7)
    assert watcher.look().state == "died"
    rewrite(left_behind, updated=minutes_ago(60), beat=8)
    assert watcher.look().state == "running", "its clock is an hour behind"
    clock.now += STALE_S - 1
    assert watcher.look().state == "running"
    clock.now += 2
    assert watcher.look().state == "died"


def test_a_beat_that_stands_still_is_a_dead_job_also_where_its_clock_is_ahead(left_behind: str) -> None:
    held_elsewhere(left_behind)
    clock = Clock()
    watcher = Watcher(left_behind, clock)
    rewrite(left_behind, updated=minutes_ago(-60))
    assert watcher.look().state == "running"
    clock.now += STALE_S + 1
    assert watcher.look().state == "died"


def test_a_status_without_a_lease_is_of_a_job_that_is_gone(left_behind: str) -> None:
    storage.remove(lease_url(left_behind))
    assert Watcher(left_behind).look().state == "died"


def test_how_a_job_ended_is_told(output: str) -> None:
    with pytest.raises(IncompleteRunError), begun_status(output, WHOLE, print):
        raise IncompleteRunError("3 of 9 batches are missing")
    state = Watcher(output).look()
    assert (state.state, state.words) == ("ended early", "ended early: 3 of 9 batches are missing")
    with begun_status(output, WHOLE, print):
        pass
    assert Watcher(output).look().words == "done"


def test_an_output_that_a_later_job_found_finished_is_done_whatever_its_last_status_said(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    with pytest.raises(IncompleteRunError), begun_status(config.output):
        raise IncompleteRunError("the network is gone")
    finish(config)
    state = Watcher(config.output).look()
    assert (state.state, state.words) == ("done", "done")


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_shares_are_shown_together_and_those_that_nobody_began_are_missed(kind: str, tmp_path: Path) -> None:
    output = str(tmp_path / "out") if kind == "folder" else f"memory://{tmp_path.name}/watched"
    with begun_status(output, (1, 3), print):
        pass
    state = Watcher(output).look()
    assert (state.state, state.missing) == ("ended early", 2)
    assert state.words == "3 shares: 1 done, 2 not begun"
    with Lease(output, (0, 3), print), begun_status(output, (0, 3), print):
        while len(read_statuses(output)) < 2:
            pass
        state = Watcher(output).look()
    assert (state.state, state.missing) == ("running", 1)
    assert state.words == "3 shares: 1 running, 1 done, 1 not begun"
    assert state.facts.total == 2 * facts().total


def test_a_finished_output_of_an_earlier_version_is_done(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    finish(config)
    assert Watcher(config.output).look().state == "done"


def test_where_no_run_was_begun_the_person_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run was begun there"):
        Watcher(str(tmp_path)).look()
