"""Pool sizes: most devices to the decoder, never more actors than devices, and CPU shares that all fit."""

from __future__ import annotations

import pytest

from jobs.engine.pools import TASK_KINDS, Pools, PoolSize, shrink, size_pools, with_less_memory, without_prior
from manifests.config import RunConfig
from manifests.errors import IncompleteRunError, UsageError


def config(prior: str = "auto", decoder: str = "auto") -> RunConfig:
    return RunConfig(manifest=("m",), output="o", prior_actors=prior, decoder_actors=decoder)


@pytest.mark.parametrize(("npus", "prior", "decoder"), [(2, 1, 1), (4, 1, 3), (8, 1, 7), (16, 2, 14), (64, 8, 56)])
def test_auto_gives_the_decoder_most_npus(npus: int, prior: int, decoder: int) -> None:
    pools = size_pools(config(), "ascend", [{"NPU": npus, "CPU": 192}])
    assert (pools.prior, pools.decoder) == (PoolSize(prior, prior), PoolSize(decoder, npus))
    assert pools.beside_prior == decoder, "the rest are the prior's, until it is done"


@pytest.mark.parametrize(
    ("share", "prior"), [(0.0, 1), (0.05, 1), (0.25, 4), (0.5, 8), (0.9, 14), (1.0, 15)], ids=lambda value: str(value)
)
def test_auto_splits_the_devices_by_what_was_measured(share: float, prior: int) -> None:
    pools = size_pools(config(), "ascend", [{"NPU": 16, "CPU": 192}], share)
    assert (pools.prior.most, pools.beside_prior) == (prior, 16 - prior)
    given = size_pools(config(prior="2"), "ascend", [{"NPU": 16, "CPU": 192}], share)
    assert given.prior.most == 2, "what a person asks for stays"


def test_shared_cards_hold_as_many_priors_as_were_measured_to_be_needed() -> None:
    assert size_pools(shared(), "ascend", [{"NPU": 16, "CPU": 64}], 0.25).prior == PoolSize(4, 4)


def test_auto_leaves_what_the_other_pool_was_given() -> None:
    assert size_pools(config(prior="3"), "ascend", [{"NPU": 8}]).beside_prior == 5
    assert size_pools(config(decoder="15"), "ascend", [{"NPU": 16}]).prior == PoolSize(1, 1)


def test_more_actors_than_npus_are_refused_with_the_sum() -> None:
    with pytest.raises(
        UsageError, match="prior pool needs 3 and the decoder pool at least 6, together 9 NPUs, but the"
    ):
        size_pools(config("3", "6:8"), "ascend", [{"NPU": 8}])
    # The prior counts with its largest size: an actor that starts again needs its device back.
    with pytest.raises(UsageError, match="needs 4 and the decoder pool at least 5"):
        size_pools(config("1:4", "5:8"), "ascend", [{"NPU": 8}])


def test_one_npu_cannot_hold_both_pools() -> None:
    with pytest.raises(UsageError, match="together 2 NPUs, but the cluster has 1"):
        size_pools(config(), "ascend", [{"NPU": 1}])


def test_a_pool_whose_least_is_above_its_most_is_refused() -> None:
    with pytest.raises(UsageError, match="option --prior-actors: '4:2'"):
        size_pools(config(prior="4:2"), "cpu", [{"CPU": 8}])


@pytest.mark.parametrize("cpus", [1, 2, 4, 8, 64])
@pytest.mark.parametrize("actors", ["auto", "2", "2:6"])
def test_both_pools_leave_ray_data_a_tenth_of_the_cpus_for_each_kind_of_task(cpus: int, actors: str) -> None:
    pools = size_pools(config(actors, actors), "cpu", [{"CPU": cpus}])
    assert 0 < pools.actor_share <= 1
    assert 0 < pools.task_share <= min(1, cpus / 10)
    # As Ray Data reserves it (ReservationOpResourceAllocator): half of the CPUs in equal parts, or what is needed.
    prior, decoder = pools.prior.most * pools.actor_share, pools.decoder.most * pools.actor_share
    for kinds in (3, TASK_KINDS):
        part = 0.5 * cpus / (kinds + 2)
        assert kinds * max(part, pools.task_share) + max(part, prior) + max(part, decoder) <= cpus
    assert pools.threads >= 1


def test_only_actors_on_ascend_ask_for_an_npu() -> None:
    ascend = size_pools(config(), "ascend", [{"NPU": 2, "CPU": 8}]).actor_options()
    cpu = size_pools(config(), "cpu", [{"CPU": 8}]).actor_options()
    assert ascend["resources"] == {"NPU": 1}
    assert "resources" not in cpu
    # Ray pins a device by this variable; a value of ours would undo it.
    assert "ASCEND_RT_VISIBLE_DEVICES" not in ascend["runtime_env"]["env_vars"]
    assert cpu["runtime_env"]["env_vars"]["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] == "python"
    assert cpu["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "4"


def test_a_fixed_decoder_pool_stays_as_it_is() -> None:
    pools = size_pools(config("1", "3"), "ascend", [{"NPU": 8, "CPU": 64}])
    assert (pools.decoder, pools.beside_prior) == (PoolSize(3, 3), 3)


def test_a_node_with_few_cpus_bounds_the_share_of_every_actor() -> None:
    pools = size_pools(config(), "ascend", [{"CPU": 64}, {"NPU": 2, "CPU": 1}, {"NPU": 2, "CPU": 8}])
    assert 3 * pools.actor_share <= 1


def shared(prior: str = "auto", decoder: str = "auto", memory: float | None = 64) -> RunConfig:
    return config(prior, decoder).model_copy(update={"share_devices": True, "device_memory": memory})


def test_shared_cards_have_a_decoder_each_and_a_prior_on_some() -> None:
    pools = size_pools(shared(), "ascend", [{"NPU": 16, "CPU": 64}])
    assert (pools.prior, pools.decoder, pools.beside_prior) == (PoolSize(2, 2), PoolSize(16, 16), 16)
    assert pools.actor_options()["resources"] == {"NPU": 0.5}
    assert size_pools(shared(), "ascend", [{"NPU": 1, "CPU": 8}]).decoder.most == 1, "one card is enough"


def test_shared_cards_that_cannot_work_are_refused() -> None:
    nodes = [{"NPU": 4, "CPU": 16}]
    with pytest.raises(UsageError, match="--share-devices: needs --device-memory"):
        size_pools(shared(memory=None), "ascend", nodes)
    with pytest.raises(UsageError, match="5 decoder actors need 5 NPUs and the cluster has 4"):
        size_pools(shared(decoder="5"), "ascend", nodes)
    with pytest.raises(UsageError, match="each of the 3 prior actors needs a decoder actor"):
        size_pools(shared("3", "2"), "ascend", nodes)
    with pytest.raises(UsageError, match="fixed pools"):
        size_pools(shared(decoder="1:4"), "ascend", nodes)


@pytest.mark.parametrize(("left", "prior", "decoder", "later"), [(6, 2, 4, 6), (3, 2, 1, 3), (2, 1, 1, 2)])
def test_pools_shrink_with_the_cluster(left: int, prior: int, decoder: int, later: int) -> None:
    pools = size_pools(config("2", "auto"), "ascend", [{"NPU": 8, "CPU": 64}])
    small = shrink(pools, [{"NPU": left, "CPU": 16}])
    assert (small.prior.most, small.beside_prior, small.decoder.most) == (prior, decoder, later)
    assert small.needs["NPU"] <= left
    with pytest.raises(IncompleteRunError, match="need 2 NPUs or more, and 1 of"):
        shrink(pools, [{"NPU": 1, "CPU": 16}])


@pytest.mark.parametrize("stage", ["prior", "decode"])
def test_a_stage_alone_has_all_devices_and_shrinks_to_what_is_left(stage: str) -> None:
    given = {"manifest": ("m",), "output": "o", "stage": stage}
    one = size_pools(RunConfig.model_validate(given), "ascend", [{"NPU": 1, "CPU": 8}])
    assert one.prior.most + one.decoder.most == 1
    pools = size_pools(RunConfig.model_validate(given), "ascend", [{"NPU": 8, "CPU": 64}])
    mine, other = (pools.prior, pools.decoder) if stage == "prior" else (pools.decoder, pools.prior)
    assert (mine, other) == (PoolSize(8, 8), PoolSize(0, 0))
    assert pools.needs["NPU"] == 8
    left = shrink(pools, [{"NPU": 3, "CPU": 24}])
    assert (left.prior.most, left.decoder.most) == ((3, 0) if stage == "prior" else (0, 3))
    assert (pools.tasks_at_once, left.tasks_at_once) == (16, 6)
    assert left.needs["NPU"] == 3
    with pytest.raises(UsageError, match="asks for 9 NPUs, but the cluster has 8"):
        size_pools(
            RunConfig.model_validate({**given, "prior_actors": "9", "decoder_actors": "9"}), "ascend", [{"NPU": 8}]
        )


def test_without_a_prior_the_decoder_has_all_cards_at_once() -> None:
    nodes = [{"NPU": 8, "CPU": 64}]
    pools = without_prior(size_pools(config(), "ascend", nodes), nodes)
    assert (pools.prior.most, pools.beside_prior, pools.needs["NPU"]) == (0, 8, 8)


def relief(pools: Pools) -> list[str]:
    """All that can be done for memory, step by step."""
    steps = []
    while (smaller := with_less_memory(pools)) is not None:
        assert sum((smaller.prior.most, smaller.beside_prior)) <= sum((pools.prior.most, pools.beside_prior))
        assert all(size.least <= size.most for size in (smaller.prior, smaller.decoder))
        pools = smaller
        steps.append(pools.in_words)
    return steps


@pytest.mark.parametrize(
    ("prior", "decoder", "steps"),
    [
        ("auto", "auto", ["1 prior, then 1 decoder actors"]),
        (
            "2",
            "2:3",
            [
                "2 prior and 2 decoder actors",
                "2 prior and 1 decoder actors",
                "1 prior and 1 decoder actors",
                "1 prior, then 1 decoder actors",
            ],
        ),
    ],
)
def test_for_memory_the_decoder_gives_first_then_the_prior_and_then_they_take_turns(
    prior: str, decoder: str, steps: list[str]
) -> None:
    assert relief(size_pools(config(prior, decoder), "cpu", [{"CPU": 8}])) == steps


def test_pools_in_turn_and_pools_alone_give_actors_only() -> None:
    in_turn = size_pools(config("2", "3"), "ascend", [{"NPU": 8, "CPU": 64}], in_turn=True)
    assert relief(in_turn) == ["1 prior, then 2 decoder actors", "1 prior, then 1 decoder actors"]
    alone = RunConfig.model_validate({"manifest": ("m",), "output": "o", "stage": "prior"})
    assert relief(size_pools(alone, "ascend", [{"NPU": 2, "CPU": 8}])) == ["1 prior actors"]


def test_shared_cards_keep_a_decoder_beside_each_prior() -> None:
    pools = with_less_memory(size_pools(shared("2", "2"), "ascend", [{"NPU": 2, "CPU": 8}]))
    assert pools is not None
    assert (pools.prior, pools.decoder, pools.shared) == (PoolSize(1, 1), PoolSize(1, 1), True)
    assert relief(pools) == ["1 prior, then 1 decoder actors"]
