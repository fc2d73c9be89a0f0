"""What is compiled: shapes with batches enough for what their graphs save, as measured, and the same ever after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.cost.step_times import GraphTimes, StepTimes
from jobs.engine.pools import Pools, PoolSize
from jobs.schedule import graphs
from jobs.schedule.graphs import MARGIN, MOVQ, PRIOR, UNET, GraphPlan, plan_graphs
from manifests.batch import Bucket
from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.planning.window_summary import BucketTally
from workers.device.device import DeviceKind
from workers.fault_tolerance.guard import PROBE_BUCKET
from workers.kandinsky.graph_choice import EVERYTHING, NOTHING

#: Batches of ten steps whose graphs save just enough, of 0.1 s a step and 20 s of compiling.
STEPS, ENOUGH = 10, int(MARGIN * 20)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig(manifest=("m",), output=str(tmp_path / "out"), batch_size=4)


def bucket(**settings: Any) -> Bucket:
    return PROBE_BUCKET.model_copy(update={"steps": STEPS, "prior_steps": 2, "strength": None, **settings})


def batches(count: int) -> BucketTally:
    return BucketTally(samples=4 * count, batches=count, made=4 * count)


def measured(device: str, *found: GraphTimes) -> tuple[str, StepTimes]:
    return "a run", StepTimes(
        device=device, batch_size=4, prior_actors=1, decoder_actors=1, buckets=(), graphs=tuple(found)
    )


def times(part: str, saved: float, compiling: float = 20.0, shape: tuple[int, ...] = (8, 4, 16, 16)) -> GraphTimes:
    return GraphTimes(part=part, shape=shape, compiling=compiling, graph=1.0, operators=1.0 + saved)


def chosen(
    config: RunConfig,
    planned: dict[Bucket, BucketTally],
    kind: DeviceKind = "cpu",
    known: tuple[str, StepTimes] | None = None,
    actors: int = 1,
) -> GraphPlan:
    known = known or measured("cpu", times(UNET, saved=0.1), times(PRIOR, saved=0.01, compiling=10.0))
    pools = Pools(kind, PoolSize(1, 1), PoolSize(1, actors), 1)
    return plan_graphs(config, planned, kind, pools, known)


def test_a_shape_is_compiled_where_it_has_batches_enough(config: RunConfig) -> None:
    few, many = bucket(), bucket(width=256)
    found = chosen(config, {few: batches(ENOUGH - 1), many: batches(ENOUGH)})
    assert found.choice.decoder == {many.shape}
    assert not found.choice.movq
    assert found.in_words == (
        f"graphs: {many.shape} (400 steps of {many.shape} an actor save 40s, and compiling takes 20s, by a run)"
    )


def test_buckets_of_one_shape_share_a_graph(config: RunConfig) -> None:
    half = {bucket(): batches(ENOUGH // 2), bucket(steps=2 * STEPS, strength=0.5): batches(ENOUGH // 2)}
    assert chosen(config, half).choice.decoder == {bucket().shape}


def test_every_actor_and_job_compiles_for_itself(config: RunConfig) -> None:
    planned = {bucket(): batches(2 * ENOUGH)}
    assert chosen(config.model_copy(update={"output": config.output + "4"}), planned, actors=4).choice == NOTHING
    share = config.model_copy(update={"shards": "2/3", "output": config.output + "3"})
    assert chosen(share, planned).choice == NOTHING
    assert chosen(config, planned, actors=2).choice.decoder == {bucket().shape}


def test_the_prior_is_compiled_for_its_own_steps(config: RunConfig) -> None:
    enough = int(MARGIN * 10 / 0.01 / 25)
    assert chosen(config, {bucket(steps=1, prior_steps=25): batches(enough)}).choice.prior
    other = config.model_copy(update={"output": config.output + "2"})
    assert not chosen(other, {bucket(steps=1, prior_steps=25): batches(enough - 1)}).choice.prior


def test_a_graph_that_was_slower_is_not_compiled_and_movq_goes_by_its_own_figures(config: RunConfig) -> None:
    planned = {bucket(): batches(ENOUGH)}
    slow = measured("cpu", times(UNET, saved=-0.1))
    assert chosen(config, planned, known=slow).choice == NOTHING
    movq = (4, 4, 16, 16)
    for number, (saved, compiled) in enumerate(((2.0, True), (-2.0, False))):
        fast = measured("cpu", times(UNET, saved=0.1), times(MOVQ, saved=saved, compiling=5.0, shape=movq))
        elsewhere = config.model_copy(update={"output": config.output + str(number)})
        found = chosen(elsewhere, planned, known=fast)
        assert (found.choice.decoder, found.choice.movq) == ({bucket().shape}, compiled)


def test_a_size_goes_by_the_measured_one_that_is_most_like_it(config: RunConfig) -> None:
    small, large = times(UNET, saved=0.1), times(UNET, saved=-0.1, shape=(8, 4, 64, 64))
    planned = {bucket(): batches(ENOUGH), bucket(height=512, width=512): batches(ENOUGH)}
    assert chosen(config, planned, known=measured("cpu", large, small)).choice.decoder == {bucket().shape}


def test_nothing_is_compiled_before_anybody_has_measured_it_on_such_a_device(config: RunConfig) -> None:
    found = chosen(config, {bucket(): batches(10**6)}, "ascend", measured("cpu", times(UNET, saved=1.0)))
    assert found.choice == NOTHING
    assert "nobody has measured what graphs save on ascend: a run with --graph on does" in found.in_words
    unmeasured = config.model_copy(update={"output": config.output + "-on-cpus"})
    assert chosen(unmeasured, {bucket(): batches(10**6)}, "cpu", measured("cpu")).choice == NOTHING
    # And stays so: what is there already was made so.
    now = measured("ascend", times(UNET, saved=1.0))
    assert chosen(config, {bucket(): batches(10**6)}, "ascend", now).choice == NOTHING


def test_graphs_of_an_output_are_not_taken_back(config: RunConfig) -> None:
    planned = {bucket(): batches(ENOUGH)}
    off = config.model_copy(update={"graph": "off"})
    assert chosen(off, planned).choice == NOTHING
    assert chosen(config, planned).choice.any
    with pytest.raises(UsageError, match=r"option --graph: .* was begun with graphs, which have other last digits"):
        chosen(off, planned)


def test_of_two_jobs_of_one_output_the_first_one_chooses(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = {bucket(): batches(ENOUGH)}
    first, known = chosen(config, planned), graphs.kept
    answers = iter([None])
    monkeypatch.setattr(graphs, "kept", lambda *place: next(answers, known(*place)))
    assert chosen(config, planned, known=measured("cpu", times(UNET, saved=-1.0))) == first


def test_a_later_start_does_as_the_first_one_whatever_was_measured_meanwhile(config: RunConfig) -> None:
    planned = {bucket(): batches(ENOUGH)}
    first = chosen(config, planned)
    assert chosen(config, planned, known=measured("cpu", times(UNET, saved=-1.0)), actors=9) == first
    # Another kind of device is another matter.
    assert chosen(config, planned, "ascend").choice == NOTHING


def test_the_prior_alone_settles_nothing_for_the_decoder(config: RunConfig) -> None:
    planned = {bucket(): batches(ENOUGH)}
    alone = config.model_copy(update={"stage": "prior"})
    chosen(alone, planned)
    assert chosen(config, planned, actors=9).choice == NOTHING


@pytest.mark.parametrize(("graph", "choice"), [("on", EVERYTHING), ("off", NOTHING)])
def test_a_person_may_say_so(config: RunConfig, graph: str, choice: object) -> None:
    found = chosen(config.model_copy(update={"graph": graph}), {bucket(): batches(ENOUGH)})
    assert (found.choice, found.reason) == (choice, f"--graph {graph}")
