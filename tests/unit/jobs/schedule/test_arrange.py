"""Who works when: pools where they divide the cards well, phases where they do not, and the sizes of both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cost.step_times import BucketTimes, StepTimes
from jobs.cost.weights import Weights
from jobs.cost.work import MAPS, DeviceTime, device_time
from jobs.run import run_folder
from jobs.schedule.arrange import LOADING_S, PIECE_ROWS, Schedule, Sized, arrange, phases_seconds, pools_seconds
from jobs.schedule.cpu_actors import WORK_S
from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.planning.layout import PlannedShard
from manifests.planning.plan import Plan, plan
from workers.device.device import DeviceKind

NODES = [{"NPU": 16, "CPU": 192}]


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    pq.write_table(pa.table({"task": ["text2img"] * 8, "prompt": ["x"] * 8}), tmp_path / "m.parquet")
    return RunConfig(manifest=(str(tmp_path / "m.parquet"),), output=str(tmp_path / "out"), batch_size=4)


@pytest.fixture
def planned(config: RunConfig) -> Plan:
    return plan(config)


def work(hours: float, share: float, cards: int) -> DeviceTime:
    """Of so many cards for so long."""
    seconds = 3600 * hours * cards
    return DeviceTime(seconds * share, seconds * (1 - share), "a test")


def chosen(config: RunConfig, planned: Sized, time: DeviceTime | None, cards: int = 8, **given: Any) -> Schedule:
    nodes = [{"NPU": min(cards, 8), "CPU": 192}] * max(1, cards // 8)
    return arrange(config.model_copy(update=given), planned, "ascend", nodes, time, lambda words: None)


@pytest.mark.parametrize("cards", [8, 16, 64])
@pytest.mark.parametrize("share", [0.02, 0.085])
@pytest.mark.parametrize("hours", [1, 3, 10])
def test_runs_of_an_hour_or_more_keep_97_of_100_cards_busy(
    config: RunConfig, planned: Plan, cards: int, share: float, hours: float
) -> None:
    time = work(hours, share, cards)
    schedule = chosen(config, planned, time, cards)
    pieces = -(-planned.samples // schedule.pieces.rows)
    ideal = time.total / cards
    takes = phases_seconds(time, cards, pieces) if schedule.name == "phases" else pools_seconds(time, cards)
    assert ideal / takes >= 0.97
    assert takes <= 1.01 * pools_seconds(time, cards), "and are not slower than the best two pools"


def test_eight_cards_take_turns_where_the_prior_is_a_small_part(config: RunConfig, planned: Plan) -> None:
    schedule = chosen(config, planned, work(3, 0.02, 8))
    assert schedule.name == "phases"
    assert schedule.reason == (
        "the prior is 2.0% of the work, so two pools would keep 89% of 8 NPUs busy, and taking turns saves 20m 36s of "
        "3h 21m"
    )
    assert (schedule.pools.prior.most, schedule.pools.decoder.most, schedule.pools.in_turn) == (8, 8, True)


def test_pools_stay_where_they_divide_well_or_the_run_is_short(config: RunConfig, planned: Plan) -> None:
    even = chosen(config, planned, work(3, 0.125, 8))
    assert (even.name, even.pools.prior.most, even.pools.beside_prior) == ("pools", 1, 7)
    short = chosen(config, planned, work(0.1, 0.02, 8))
    assert short.name == "pools"
    assert short.reason.endswith("89% of 8 NPUs busy, and loading models again would cost as much")
    many = chosen(config, planned, work(1, 0.02, 64), 64)
    assert (many.name, many.pools.prior.most) == ("pools", 2)


def test_one_card_takes_turns_for_want_of_another(config: RunConfig, planned: Plan) -> None:
    schedule = chosen(config, planned, None, 1)
    assert (schedule.name, schedule.reason) == ("phases", "there is one NPU, for one model at a time")
    assert (schedule.pools.prior.most, schedule.pools.decoder.most) == (1, 1)
    with pytest.raises(UsageError, match="together 2 NPUs, but the cluster has 1"):
        chosen(config, planned, None, 1, schedule="pools")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"prior_actors": "2"}, "the sizes of pools are given"),
        ({"share_devices": True, "device_memory": 64.0}, "--share-devices"),
        ({"schedule": "pools"}, "--schedule pools"),
        ({"stage": "decode"}, "--stage decode has one pool"),
    ],
)
def test_what_a_person_asks_for_stands(config: RunConfig, planned: Plan, given: dict[str, Any], why: str) -> None:
    schedule = chosen(config, planned, work(3, 0.02, 8), **given)
    assert (schedule.name, schedule.reason) == ("pools", why)


def test_sizes_that_are_given_hold_in_phases_as_well(config: RunConfig, planned: Plan) -> None:
    pools = chosen(config, planned, None, schedule="phases", prior_actors="4").pools
    assert (pools.prior.most, pools.decoder.most, pools.needs["NPU"]) == (4, 8, 8)
    assert pools.in_words == "4 prior, then 8 decoder actors"
    with pytest.raises(UsageError, match="--decoder-actors: asks for 9 NPUs, but the cluster has 8"):
        chosen(config, planned, None, schedule="phases", decoder_actors="9")


def test_on_the_cpu_both_pools_share_what_there_is(config: RunConfig, planned: Plan) -> None:
    schedule = arrange(config, planned, "cpu", [{"CPU": 4}], None, lambda words: None)
    assert (schedule.name, schedule.reason) == ("pools", "both share the CPUs, so none is idle")


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ({}, (1, 8)),
        ({"schedule": "phases"}, (5, 8)),
        ({"decoder_actors": "3"}, (1, 3)),
        ({"prior_actors": "2"}, (2, 8)),
        ({"stage": "decode", "embeddings": "e"}, (0, 8)),
        ({"stage": "prior", "embeddings": "e"}, (5, 0)),
    ],
)
def test_every_cpu_has_an_actor_where_there_is_work_for_it(
    config: RunConfig, given: dict[str, Any], sizes: tuple[int, int]
) -> None:
    time = DeviceTime(5 * WORK_S, 95 * WORK_S, "a test")
    nodes = [{"CPU": 8, "memory": 64 << 30}]
    load = PlanOf(samples=1000)
    schedule = arrange(
        config.model_copy(update=given), load, "cpu", nodes, time, lambda words: None, lambda: Weights(0, 0)
    )
    pools = schedule.pools
    assert (pools.prior.most, pools.decoder.most) == sizes
    assert pools.threads == 1 or given


@pytest.mark.parametrize("share", [0.02, 0.085])
def test_a_piece_is_long_enough_for_its_loads_and_soon_decoded(config: RunConfig, share: float) -> None:
    huge = PlanOf(samples=50_000_000)
    time = DeviceTime(huge.samples * share, huge.samples * (1 - share), "a test")
    pieces = chosen(config, huge, time, 64).pieces
    seconds = pieces.rows / 64
    assert pieces.rows <= PIECE_ROWS
    assert seconds * share <= 1801, "half an hour until the first images at most"
    assert 2 * LOADING_S / seconds <= 0.02


def test_loading_as_it_was_measured_decides_in_place_of_a_minute(config: RunConfig, planned: Plan) -> None:
    short = work(0.1, 0.02, 8)
    assert chosen(config, planned, short).name == "pools"
    assert chosen(config, planned, replace(short, loading={"prior": 4.0, "decoder": 6.0})).name == "phases"
    assert phases_seconds(replace(short, loading={"prior": 4.0, "decoder": 6.0}), 8, 3) == pytest.approx(
        360 + 3 * 6 + 2 * 4
    )
    long = work(10, 0.02, 8)
    slow = replace(long, loading={"prior": 6000.0, "decoder": 6000.0})
    assert (chosen(config, planned, long).name, chosen(config, planned, slow).name) == ("phases", "pools")


@pytest.mark.parametrize(
    ("cards", "seconds", "batches"), [(8, 4.0, 1), (64, 0.8, 16), (64, 0.01, 32), (64, 4.0, 4), (8, None, 8)]
)
def test_short_calls_of_the_prior_travel_several_at_a_time(
    config: RunConfig, cards: int, seconds: float | None, batches: int
) -> None:
    plan = PlanOf(samples=400_000)
    time = None if seconds is None else DeviceTime(plan.batches * seconds, plan.batches * 40.0, "a test")
    assert chosen(config, plan, time, cards).pieces.together == batches


class PlanOf:
    """A plan of so many images in batches of four, as far as the arrangement looks at it."""

    def __init__(self, samples: int) -> None:
        self.samples, self.batches = samples, samples // 4
        self.shards: tuple[PlannedShard, ...] = ()


def measure(config: RunConfig, planned: Plan, device: str = "ascend") -> None:
    """A run has found the prior to take a quarter of the time."""
    [bucket] = planned.buckets
    seconds = {"prior": 2.0, "decoder": 6.0}
    times = BucketTimes(bucket=bucket, batches=2, images=8, size=4, seconds=seconds, bytes_per_image=1.0)
    record = StepTimes(device=device, batch_size=4, prior_actors=1, decoder_actors=1, buckets=(times,))
    run_folder.write_times(config, record)


def split(config: RunConfig, planned: Plan, kind: DeviceKind = "ascend") -> tuple[Schedule, list[str]]:
    said: list[str] = []
    time = device_time(config, planned, kind, run_folder.known_times(config))
    return arrange(config, planned, kind, NODES, time, said.append), said


def test_a_start_goes_by_what_the_one_before_has_measured(config: RunConfig, planned: Plan) -> None:
    measure(config, planned)
    schedule, said = split(config, planned)
    assert (schedule.pools.prior.most, schedule.pools.beside_prior) == (4, 12)
    assert said == [f"of the device time 25.0% is the prior's, by {config.output}/_run/times.json"]


def test_another_output_can_be_named(config: RunConfig, planned: Plan, tmp_path: Path) -> None:
    before = config.model_copy(update={"output": str(tmp_path / "before")})
    measure(before, planned)
    assert split(config.model_copy(update={"times_of": before.output}), planned)[0].pools.prior.most == 4
    with pytest.raises(UsageError, match=r"option --times-of: .*out has no _run/times.json that can be used: no run"):
        split(config.model_copy(update={"times_of": config.output}), planned)


@pytest.mark.parametrize("device", ["cpu", None])
def test_what_nobody_has_measured_goes_by_the_work_that_it_is(
    config: RunConfig, planned: Plan, device: str | None
) -> None:
    if device is not None:
        measure(config, planned, device)
    schedule, said = split(config, planned)
    # Of the demo checkpoint the prior is next to nothing of an image of 512 pixels and 100 steps.
    assert schedule.pools.prior.most == 1
    assert said == ["of the device time 0.2% is the prior's, by the FLOPs of its models"]


@pytest.mark.parametrize(("limits", "images"), [({}, 4), ({"batch_size": 32}, 8), ({"batch_pixels": 3 * 512 * 512}, 3)])
def test_the_largest_call_has_what_its_bounds_and_the_plan_let_it(
    config: RunConfig, planned: Plan, limits: dict[str, int], images: int
) -> None:
    measure(config, planned, "cpu")
    for known in (None, run_folder.known_times(config)):
        time = device_time(config.model_copy(update=limits), planned, "cpu", known)
        assert time is not None
        # MoVQ of the demo checkpoint has two widths of 32 there.
        assert time.call_bytes == MAPS * 4 * (32 + 32) * images * 512 * 512


def test_times_of_a_card_say_nothing_of_the_cpu(config: RunConfig, planned: Plan) -> None:
    measure(config, planned)
    assert split(config, planned, "cpu")[1] == []


def test_a_record_that_cannot_be_read_stops_no_run_that_did_not_ask_for_it(config: RunConfig, planned: Plan) -> None:
    file = Path(config.output) / "_run" / "times.json"
    file.parent.mkdir(parents=True)
    for content in ("{", '{"device": "ascend"}'):
        file.write_text(content)
        assert split(config, planned)[0].pools.prior.most == 1
        with pytest.raises(UsageError, match="option --times-of"):
            split(config.model_copy(update={"times_of": config.output}), planned)


def test_a_checkpoint_whose_configs_cannot_be_read_gives_the_prior_an_eighth(
    config: RunConfig, planned: Plan, tmp_path: Path
) -> None:
    schedule, said = split(config.model_copy(update={"checkpoint": str(tmp_path)}), planned)
    assert (schedule.name, schedule.pools.prior.most, said) == ("pools", 2, [])
    assert schedule.reason == "nobody knows yet what the prior's part of the work is"


@pytest.mark.parametrize(
    ("memory", "given", "name"),
    [
        (19, {}, "pools"),
        (17, {}, "phases"),
        (19, {"decoder_actors": "2"}, "phases"),
        (17, {"schedule": "pools"}, "pools"),
        (0, {}, "pools"),
    ],
)
def test_cpus_take_turns_where_their_memory_is_too_small_for_the_models_of_both_pools(
    config: RunConfig, planned: Plan, memory: int, given: dict[str, Any], name: str
) -> None:
    weights = Weights(prior=6 << 30, decoder=12 << 30)
    nodes = [{"CPU": 8, **({"memory": memory << 30} if memory else {})}]
    schedule = arrange(
        config.model_copy(update=given), planned, "cpu", nodes, None, lambda words: None, lambda: weights
    )
    assert (schedule.name, schedule.pools.in_turn) == (name, name == "phases")
    if not given and memory == 17:
        assert schedule.reason == "the models of both pools take 18.0 GiB, and Ray has 17.0 GiB for processes"
