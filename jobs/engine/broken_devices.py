"""NPUs that were taken out: the run holds them itself, so that Ray gives them to none of its actors.

Ray can be asked for any NPU of a node and not for a certain one. An actor that starts again, or a pipeline that begins
anew, would sooner or later be given the broken one; so a small actor sits on it until the run ends.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs.engine.pools import Node
from workers.fault_tolerance.attempts import Broken
from workers.fault_tolerance.guard import this_worker

#: Seconds until the NPUs of a node are free again after the processes that had them were ended.
FREE_WITHIN_S = 60.0


class Holder:
    """An actor that has an NPU and does nothing with it."""

    def device(self) -> str:
        """Which it has, as `Worker.device`."""
        return this_worker("holder").device


@dataclass(frozen=True)
class TakenOut:
    """The devices that a run does without.

    Attributes:
        devices: those that it knows of.
        holders: handles of the actors that sit on them; they end with the last of their handles.
    """

    devices: tuple[Broken, ...] = ()
    holders: tuple[Any, ...] = ()

    def new(self, broken: Sequence[Broken]) -> list[Broken]:
        """Those of them that are not known yet."""
        known = {each.device for each in self.devices}
        return [each for each in broken if each.device not in known]

    def hold(self, broken: Sequence[Broken], tell: Callable[[str], None]) -> TakenOut:
        """With these devices as well; called between two pipelines, when their processes were ended.

        A device that is not found free in time is left, which `tell` hears: the attempts actor ends the run if one of
        its actors is given it.
        """
        new = self.new(broken)
        holders = list(self.holders)
        for node in {each.node for each in new} & {node["NodeID"] for node in ray.nodes() if node["Alive"]}:
            devices = {each.device for each in new if each.node == node}
            held = _hold(node, devices)
            if len(held) < len(devices):
                tell(f"NPUs that are taken out are still in use after {FREE_WITHIN_S:g} s, so nobody keeps them free")
            holders += held
        return replace(self, devices=(*self.devices, *new), holders=tuple(holders))

    def nodes(self) -> list[Node]:
        """What each node that is alive has, by Ray's names of resources, less what is taken out."""
        found = []
        for node in ray.nodes():
            if node["Alive"]:
                less = sum(each.node == node["NodeID"] for each in self.devices)
                resources = node["Resources"]
                found.append({**resources, "NPU": resources["NPU"] - less} if less else resources)
        return found


def _hold(node: str, devices: set[str]) -> list[Any]:
    """Handles of actors that sit on these devices of a node: as many are started as the node has NPUs, and sorted."""
    (resources,) = (each["Resources"] for each in ray.nodes() if each["NodeID"] == node)
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    holder = ray.remote(num_cpus=0, resources={"NPU": 1}, scheduling_strategy=there)(Holder)
    started = [holder.remote() for _ in range(int(resources["NPU"]))]
    asked = {actor.device.remote(): actor for actor in started}
    held: list[Any] = []
    deadline = time.monotonic() + FREE_WITHIN_S
    while asked and len(held) < len(devices):
        told, _ = ray.wait(list(asked), timeout=max(0.0, deadline - time.monotonic()))
        if not told:
            break
        # The wrong ones stay for the time being: what they set free would be given to those that still wait.
        actor = asked.pop(told[0])
        with contextlib.suppress(ray.exceptions.RayError):  # the node may go as well
            if ray.get(told[0]) in devices:
                held.append(actor)
    for actor in started:
        if actor not in held:
            ray.kill(actor)
    return held
