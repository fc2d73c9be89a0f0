"""Where actors go that share a card: a Ray placement group per card holds one decoder and at most one prior actor.

Fractions of an NPU alone do not pair them: Ray packs them as they come, two priors on one card and a decoder on none.
A placement group holds one whole card, and what is placed in it stays on that card, over restarts too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jobs.engine.pools import Pools
from manifests.errors import IncompleteRunError

#: A pool's `ray_remote_args_fn`: further Ray options for its next actor.
NextActor = Callable[[], dict[str, Any]]
#: Called once per pool; None where every actor has a card of its own and Ray may choose it.
Places = Callable[[], NextActor | None]

#: Seconds until all cards must be ours; they are free unless another job holds some.
READY_TIMEOUT_S = 120.0


@contextmanager
def card_places(pools: Pools) -> Iterator[Places]:
    """Hold the cards that both pools share, and give them back afterwards.

    Raises:
        IncompleteRunError: not so many cards are free.
    """
    if not pools.shared:
        yield lambda: None
        return
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    bundle = {"NPU": 1, "CPU": 2 * pools.actor_share}
    groups = [placement_group([bundle]) for _ in range(pools.decoder.most)]
    try:
        ready, _ = ray.wait([g.ready() for g in groups], num_returns=len(groups), timeout=READY_TIMEOUT_S)
        if len(ready) < len(groups):
            raise IncompleteRunError(
                f"only {len(ready)} of {len(groups)} NPUs were free within {READY_TIMEOUT_S:g} s; another job holds "
                "the others. Wait for it, or lower --decoder-actors"
            )

        def places() -> NextActor:
            # The pool's n-th actor goes to the n-th card: fixed pools never start another one.
            turns = itertools.cycle(groups)
            return lambda: {"scheduling_strategy": PlacementGroupSchedulingStrategy(next(turns))}

        yield places
    finally:
        for group in groups:
            remove_placement_group(group)
