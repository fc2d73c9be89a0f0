"""The books of attempts: what is blamed on a row, on a device, on a checkpoint, and on nobody."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from manifests.errors import IncompleteRunError, UsageError
from workers.fault_tolerance.attempts import START_FAILURES, Attempts, Broken, Worker
from workers.fault_tolerance.memory import DEATHS, Request

PLACE = ("decoder", 3, 7)


class Line:
    """One device whose processes die: each call of `next` is the process that Ray starts in their place."""

    def __init__(self, device: str = "npu-0") -> None:
        self.lost: set[str] = set()
        self.words: dict[str, str] = {}
        self.now = 0.0
        self.books = Attempts(lambda: self.lost, lambda worker: self.words.get(worker, ""), clock=lambda: self.now)
        self.worker = Worker("0", "actor", "node", device, f"NPU 0 of {device}")

    def next(self) -> Worker:
        self.worker = replace(self.worker, id=str(int(self.worker.id) + 1))
        return self.worker


@pytest.fixture
def line() -> Line:
    return Line()


def die_whole(line: Line, times: int = 2) -> None:
    for _ in range(times):
        orders = line.books.begin(PLACE, line.next(), can_probe=True)
        assert not orders.alone


def test_a_batch_is_tried_whole_twice_then_its_device_and_then_row_by_row(line: Line) -> None:
    die_whole(line)
    orders = line.books.begin(PLACE, line.next(), can_probe=True)
    assert (orders.alone, orders.probe, orders.killed) == (True, True, {})


def test_a_row_that_dies_alone_is_killed_and_the_device_is_not_tried_again(line: Line) -> None:
    die_whole(line)
    line.books.begin(PLACE, line.next(), can_probe=True)
    line.books.trying(PLACE, "probe")
    line.books.probed(PLACE, line.worker, None)
    line.books.trying(PLACE, 0)
    line.books.trying(PLACE, 1)
    orders = line.books.begin(PLACE, line.next(), can_probe=True)
    assert orders.alone
    assert not orders.probe
    assert list(orders.killed) == [1]
    assert "killed its worker" in orders.killed[1]


def test_a_batch_that_went_well_is_forgotten(line: Line) -> None:
    die_whole(line)
    line.books.end(PLACE)
    assert not line.books.begin(PLACE, line.next(), can_probe=True).alone


def test_the_same_process_may_take_up_a_batch_again_without_a_death(line: Line) -> None:
    for _ in range(5):
        assert not line.books.begin(PLACE, line.worker, can_probe=True).alone


def test_a_stage_without_a_device_is_not_probed(line: Line) -> None:
    die_whole(line)
    orders = line.books.begin(PLACE, line.next(), can_probe=False)
    assert (orders.alone, orders.probe) == (True, False)


def test_what_a_process_said_before_it_ended_itself_is_the_reason(line: Line) -> None:
    die_whole(line)
    line.books.begin(PLACE, line.next(), can_probe=False)
    line.books.trying(PLACE, 0)
    line.books.say(line.worker.id, "did not finish within 5 s")
    assert line.books.begin(PLACE, line.next(), can_probe=False).killed == {0: "did not finish within 5 s"}


def starve(line: Line) -> None:
    """Whatever the process is at, Ray ends it for want of memory."""
    line.words[line.worker.id] = "out of memory"


def test_what_the_engine_knows_of_the_end_is_in_the_reason(line: Line) -> None:
    die_whole(line)
    for _ in range(DEATHS + 1):
        assert line.books.begin(PLACE, line.next(), can_probe=False).killed == {}
        line.books.trying(PLACE, 0)
        starve(line)
    line.books.relieve(None, None)
    killed = line.books.begin(PLACE, line.next(), can_probe=False).killed
    assert killed == {0: "killed its worker (out of memory)"}


@pytest.mark.parametrize("trial", [None, 0, "probe"])
def test_want_of_memory_is_nobodys_fault_while_the_run_can_do_with_less(
    line: Line, trial: int | Literal["probe"] | None
) -> None:
    for _ in range(10):
        orders = line.books.begin(PLACE, line.next(), can_probe=True)
        assert (orders.alone, orders.killed, orders.taken_out) == (False, {}, None)
        if trial is not None:
            line.books.trying(PLACE, trial)
        starve(line)
    words = "out of memory: the process of shard 3, batch 7 of decoder was ended 2 times"
    assert line.books.news().shortage == Request(words, by_pools=True)
    assert line.books.news().broken == []
    assert line.books.news().lost_by_cause == {"out of memory": 9}


def test_calls_are_halved_where_pools_stay_as_they_are(line: Line) -> None:
    for at_most in (None, None, 4, 4, 2, 2, 1):
        orders = line.books.begin(PLACE, line.next(), can_probe=True)
        if line.books.news().shortage:
            line.books.relieve(None, 8)
            orders = line.books.begin(PLACE, line.worker, can_probe=True)
        assert orders.at_most == at_most
        starve(line)


def test_an_actor_that_is_ended_for_memory_while_it_loads_asks_for_relief_and_ends_no_run(line: Line) -> None:
    for _ in range(2 * START_FAILURES):
        assert line.books.starting("decoder", line.next()) is None
        starve(line)
    assert line.books.news().trouble is None
    shortage = line.books.news().shortage
    assert shortage is not None
    assert "an actor of the decoder pool that loads its model was ended 2 times" in shortage.words
    line.books.relieve(None, 8)
    for _ in range(START_FAILURES):
        line.books.starting("decoder", line.next())
        starve(line)
    assert "the decoder pool cannot start" in str(line.books.news().trouble)


def test_a_lost_node_is_nobodys_fault(line: Line) -> None:
    line.lost.add("node")
    die_whole(line, times=5)


def test_a_device_that_dies_on_the_probe_is_taken_out_and_nothing_is_blamed_on_rows(line: Line) -> None:
    die_whole(line)
    for _ in range(2):
        assert line.books.begin(PLACE, line.next(), can_probe=True).probe
        line.books.trying(PLACE, "probe")
    orders = line.books.begin(PLACE, line.next(), can_probe=True)
    assert orders.taken_out is not None
    assert "NPU 0 of npu-0 is taken out" in orders.taken_out
    assert line.books.starting("decoder", line.next()) == orders.taken_out
    news = line.books.news()
    assert news.trouble is None
    assert news.broken == [Broken("npu-0", "node", orders.taken_out)]
    other = replace(line.next(), actor="other", device="npu-1")
    assert not line.books.begin(PLACE, other, can_probe=True).alone


def test_where_the_cpu_itself_fails_the_run_ends_with_the_reason(line: Line) -> None:
    line.worker = replace(line.worker, npu=False)
    take_out(line)
    trouble = line.books.news().trouble
    assert isinstance(trouble, IncompleteRunError)
    assert "no device is left for the decoder pool" in str(trouble)
    assert "HBM ECC" in str(trouble)


def take_out(line: Line) -> None:
    line.books.begin(PLACE, line.worker, can_probe=True)
    line.books.trying(PLACE, "probe")
    line.books.probed(PLACE, line.worker, "RuntimeError: HBM ECC")


def test_a_line_that_is_given_a_device_it_was_begun_without_ends(line: Line) -> None:
    take_out(line)
    assert line.books.starting("decoder", line.next()) is not None
    assert line.books.news().trouble is None, "this line is ended anyway"
    line.books.pipeline_ended()
    assert line.books.news().trouble is None
    assert line.books.starting("prior", line.next()) is not None
    trouble = line.books.news().trouble
    assert isinstance(trouble, IncompleteRunError)
    assert "the prior pool was given a device again: NPU 0 of npu-0 is taken out" in str(trouble)


def test_what_was_held_when_a_line_ended_is_blamed_on_nobody(line: Line) -> None:
    for _ in range(5):
        die_whole(line, times=1)
        line.books.pipeline_ended()


def test_a_pool_that_fails_to_start_three_times_ends_the_run(line: Line) -> None:
    for _ in range(2):
        line.books.starting("prior", line.next())
        line.books.start_failed("prior", line.worker, "KeyError: 'x'", unusable=False)
        assert line.books.news().trouble is None
    # The third one dies instead of raising.
    line.books.starting("prior", line.next())
    line.books.starting("prior", line.next())
    trouble = line.books.news().trouble
    assert isinstance(trouble, IncompleteRunError)
    assert "the prior pool cannot start on NPU 0 of npu-0" in str(trouble)


def test_a_start_that_succeeds_forgives_the_failures_before(line: Line) -> None:
    for _ in range(4):
        line.books.starting("prior", line.next())
        line.books.start_failed("prior", line.worker, "flaky", unusable=False)
        line.books.starting("prior", line.next())
        line.books.ready("prior", line.worker, {})
    assert line.books.news().trouble is None


def test_loading_and_compiling_actors_are_counted_while_they_do(line: Line) -> None:
    other = replace(line.worker, id="w-other", actor="other")

    def counts() -> tuple[dict[str, int], dict[str, int]]:
        news = line.books.news()
        return dict(news.loading), dict(news.compiling)

    line.books.starting("prior", line.worker)
    line.books.starting("decoder", other)
    assert counts() == ({"prior": 1, "decoder": 1}, {})
    for stage, worker in (("prior", line.worker), ("decoder", other)):
        line.books.ready(stage, worker, {})
        line.books.begin((stage, 0, 0), worker, can_probe=True)
        line.books.compiling(stage, worker)
    assert counts() == ({}, {"prior": 1, "decoder": 1})
    line.books.begin(("prior", 0, 0), line.worker, can_probe=True)
    assert counts() == ({}, {"decoder": 1}), "it makes the batch now"
    line.books.pipeline_ended()
    assert counts() == ({}, {})


def test_seconds_on_batches_are_counted_while_they_pass_and_without_compiling(line: Line) -> None:
    line.books.begin(PLACE, line.worker, can_probe=True)
    line.books.compiling("decoder", line.worker)
    line.now += 50
    assert line.books.news().seconds == {}
    line.books.begin(PLACE, line.worker, can_probe=True)
    line.now += 8
    assert line.books.news().seconds == {"decoder": 8}
    line.books.end(PLACE)
    line.now += 4
    line.books.begin(("decoder", 3, 8), line.worker, can_probe=True)
    line.now += 1
    assert line.books.news().seconds == {"decoder": 9}


def test_a_lost_worker_is_told_once_with_its_place_and_cause_whoever_notices_it(line: Line) -> None:
    dead = line.worker
    line.words[dead.id] = "out of memory: Ray ended it to keep its node alive"
    line.books.starting("decoder", dead)
    line.books.ready("decoder", dead, {})
    line.books.begin(PLACE, dead, can_probe=True)
    # Its actor starts again, and then the batch is taken up.
    line.books.starting("decoder", line.next())
    told = line.books.news().lost
    assert [(loss.id, loss.cause) for loss in told] == [("0", "out of memory")]
    assert told[0].words == (
        "a worker of decoder was lost on NPU 0 of npu-0 (out of memory: Ray ended it to keep its node alive); "
        "its batch (shard 3, batch 7) is made again"
    )
    line.books.ready("decoder", line.worker, {})
    line.books.begin(PLACE, line.worker, can_probe=True)
    news = line.books.news()
    assert (list(news.lost), news.lost_by_cause, news.batches_again) == (told, {"out of memory": 1}, 1)


def test_a_worker_that_dies_between_batches_or_while_it_loads_is_told_too(line: Line) -> None:
    line.books.starting("prior", line.worker)
    line.books.starting("prior", line.next())
    line.books.ready("prior", line.worker, {})
    line.books.starting("prior", line.next())
    words = [loss.words.split("; ")[-1] for loss in line.books.news().lost]
    assert words == ["it loads its model again", "it starts again"]
    assert line.books.news().lost_by_cause == {"killed or crashed": 2}
    assert line.books.news().batches_again == 0


def test_an_actor_that_starts_elsewhere_in_the_next_pipeline_was_not_lost(line: Line) -> None:
    line.books.starting("decoder", line.worker)
    line.books.ready("decoder", line.worker, {})
    line.books.begin(PLACE, line.worker, can_probe=True)
    line.books.pipeline_ended()
    line.books.starting("decoder", line.next())
    news = line.books.news()
    assert (list(news.lost), news.batches_again) == ([], 1)


def test_whoever_was_on_a_lost_node_is_told_though_nobody_takes_their_place(line: Line) -> None:
    busy, idle, loading = (replace(line.worker, id=name, actor=name) for name in ("busy", "idle", "loading"))
    elsewhere = replace(busy, id="elsewhere", actor="elsewhere", node="another")
    for worker in (busy, idle, elsewhere):
        line.books.starting("decoder", worker)
        line.books.ready("decoder", worker, {})
    line.books.starting("prior", loading)
    line.books.begin(PLACE, busy, can_probe=True)
    assert line.books.news().lost_by_cause == {}
    line.lost.add("node")
    news = line.books.news()
    assert news.lost_by_cause == {"node lost": 3}
    assert {loss.id: loss.words.split("; ")[-1] for loss in news.lost} == {
        "busy": "its batch (shard 3, batch 7) is made again",
        "loading": "what is left goes on without its node",
        "idle": "what is left goes on without its node",
    }
    # The pipeline begins anew on what is left, and nobody is told twice.
    line.books.pipeline_ended()
    line.books.starting("decoder", replace(busy, id="new", actor="new", node="another"))
    line.books.begin(PLACE, elsewhere, can_probe=True)
    news = line.books.news()
    assert (news.lost_by_cause, news.batches_again) == ({"node lost": 3}, 1)


def test_a_node_that_is_lost_as_its_pipeline_ends_is_told_all_the_same(line: Line) -> None:
    line.books.begin(PLACE, line.worker, can_probe=True)
    line.lost.add("node")
    line.books.pipeline_ended()
    (loss,) = line.books.news().lost
    assert (loss.cause, loss.words.split("; ")[-1]) == ("node lost", "its batch (shard 3, batch 7) is made again")


def test_of_a_pipeline_that_ends_those_are_lost_that_had_come_to_an_end_of_their_own(line: Line) -> None:
    starved, hung, ended = (replace(line.worker, id=name, actor=name) for name in ("starved", "hung", "ended"))
    for number, worker in enumerate((starved, hung, ended)):
        line.books.begin(("decoder", 0, number), worker, can_probe=True)
    line.words["starved"] = "out of memory: Ray ended it to keep its node alive"
    line.books.say("hung", "did not finish within 5 s")
    line.books.pipeline_ended()
    news = line.books.news()
    assert (news.lost_by_cause, news.batches_again) == ({"out of memory": 1, "hung": 1}, 3)


def test_an_unusable_checkpoint_ends_the_run_at_once(line: Line) -> None:
    line.books.starting("prior", line.worker)
    line.books.start_failed("prior", line.worker, "CheckpointError: another model", unusable=True)
    assert isinstance(line.books.news().trouble, UsageError)


def test_what_was_compiled_is_kept_with_stage_and_device(line: Line) -> None:
    line.books.compiled("decoder", line.worker, [{"part": "unet", "shape": (4, 4, 8, 8), "seconds": 12.5}])
    line.books.compiled("decoder", line.worker, [{"part": "movq decode", "shape": (2, 4, 8, 8), "seconds": 5.0}])
    first, second = line.books.compilations()
    assert first == {
        "stage": "decoder",
        "device": "NPU 0 of npu-0",
        "part": "unet",
        "shape": (4, 4, 8, 8),
        "seconds": 12.5,
    }
    assert second["part"] == "movq decode"


def test_a_graph_that_is_not_used_is_told(line: Line) -> None:
    refused = {"part": "unet", "shape": (4, 4, 8, 8), "seconds": 2.0, "why": "it does not compile (RuntimeError: no)"}
    line.books.compiled("decoder", line.worker, [refused, {**refused, "part": "movq decode", "why": None}])
    assert line.books.news().fallbacks == [
        "NPU 0 of npu-0: unet of 4 x 4 x 8 x 8 runs without a graph: it does not compile (RuntimeError: no)"
    ]


def test_a_process_with_another_source_makes_nothing_and_ends_the_run() -> None:
    books = Attempts(set, lambda worker: "", source=("/ours", "1"))
    same = Worker("1", "actor", "node", "npu-0", "NPU 0 of a", source=("/elsewhere", "1"))
    assert books.starting("decoder", same) is None
    assert books.begin(PLACE, same, can_probe=True).taken_out is None
    assert books.news().trouble is None
    other = replace(same, id="2", name="NPU 0 of b", source=("/theirs", "2"))
    orders = books.begin(PLACE, other, can_probe=False)
    assert orders.taken_out is not None
    assert orders.taken_out.startswith("NPU 0 of b would run other code than this script")
    assert books.starting("decoder", other) == orders.taken_out
    trouble = books.news().trouble
    assert isinstance(trouble, UsageError)
    assert str(trouble) == orders.taken_out


def test_loading_counts_all_models_of_an_actor_and_those_of_its_successor_anew(line: Line) -> None:
    actor = line.next()
    line.books.ready("decoder", actor, {"loading_seconds": 40.0})
    line.books.ready("decoder", actor, {"loading_seconds": 25.5})
    assert [device["loading_seconds"] for device in line.books.devices()] == [65.5]
    line.books.ready("decoder", replace(line.next(), actor="another"), {"loading_seconds": 30.0})
    assert [device["loading_seconds"] for device in line.books.devices()] == [30.0]


def test_a_switch_that_fell_back_is_told_once_however_often_its_actor_starts(line: Line) -> None:
    fell_back = {
        "switch": "attention",
        "of": "unet, heads of 64",
        "chosen": "plain",
        "fell_back": True,
        "why": "no kernel",
    }
    as_wanted = {**fell_back, "of": "movq, heads of 512", "chosen": "fused", "fell_back": False, "why": None}
    for _ in range(2):
        line.books.ready("decoder", line.next(), {"switches": [fell_back, as_wanted]})
    assert line.books.news().fallbacks == ["NPU 0 of npu-0: attention is plain for unet, heads of 64: no kernel"]
