"""Which device the pools run on, how a process takes its one before mindone is imported, and what it then has."""

from __future__ import annotations

import functools
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from manifests.config import RunConfig
from manifests.errors import DeviceError, UsageError
from workers.checkpoints.locations import cache_folder
from workers.device import lazy_mindone, lazy_transformers

DeviceKind = Literal["ascend", "cpu"]


def _process_environment() -> dict[str, str]:
    environment = {
        # MindSpore 2.8's generated protobuf code fails on the fast implementation once Ray has loaded protobuf.
        "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python",
        # mindone imports torch where it finds it, and a broken one breaks the import.
        "USE_TORCH": "0",
        "GLOG_v": "3",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    if not version("mindspore").startswith(("2.7.", "2.8.")):
        # The oneDNN of later versions falls into a reference kernel under AVX-512, some fifty times slower.
        environment["ONEDNN_MAX_CPU_ISA"] = "AVX2"
    return environment


#: What a device process needs in its environment at its start: before Ray imports protobuf, before the first operator.
PROCESS_ENVIRONMENT: Mapping[str, str] = _process_environment()


@dataclass(frozen=True)
class DeviceChoice:
    """What the pools run on, and why in words for the run's first lines."""

    kind: DeviceKind
    reason: str


def choose_device(config: RunConfig, npus: int) -> DeviceChoice:
    """Decide from `--device` and how many NPUs the Ray cluster offers.

    Raises:
        UsageError: Ascend is asked for and no node offers the resource `NPU`.
    """
    if config.device == "cpu":
        return DeviceChoice("cpu", "--device cpu")
    if npus:
        return DeviceChoice("ascend", f"the cluster offers {npus} NPU")
    if config.device == "ascend":
        raise UsageError(
            "--device ascend: no node of the cluster offers the resource NPU; start Ray on the Ascend nodes with "
            "`ray start --resources='{\"NPU\": 8}'`, or pass --device cpu"
        )
    return DeviceChoice("cpu", "no node of the cluster offers the resource NPU")


def device_here(wanted: Literal["auto", "ascend", "cpu"]) -> DeviceKind:
    """Decide for a process of this machine that has no cluster to ask: Ascend where the driver shows a card."""
    if wanted == "auto":
        return "ascend" if cards_here() else "cpu"
    return wanted


def cards_here() -> int:
    """Ascend cards that the driver of this machine shows."""
    return len(list(Path("/dev").glob("davinci[0-9]*")))


#: Of a shared card's memory: the prior's weights are a third of the decoder's, and CANN keeps some for each process.
MEMORY_SHARES: Mapping[str, float] = {"prior": 0.3, "decoder": 0.6}


@dataclass(frozen=True)
class DeviceOptions:
    """What MindSpore is told once, before its first operator.

    Attributes:
        deterministic: take the slower kernels that give the same bits every time; the CPU's do anyway.
        memory_gb: of the card's memory that this process may use, where it shares the card; None: all of it.
    """

    deterministic: bool = False
    memory_gb: float | None = None

    @classmethod
    def of(cls, config: RunConfig, stage: str) -> DeviceOptions:
        """Those of a stage's actors."""
        shared = config.device_memory if config.share_devices else None
        return cls(config.deterministic, None if shared is None else round(shared * MEMORY_SHARES[stage], 1))


#: The variable in which Ray hands an actor its NPU; CANN shows the process that one only, as device 0.
VISIBLE_NPUS = "ASCEND_RT_VISIBLE_DEVICES"


def take(kind: DeviceKind, stage: str = "", options: DeviceOptions | None = None) -> None:
    """Make this process's MindSpore use the device; must come before mindone is imported, with one kind only.

    On CPU the kernels that the backend lacks are supplied. On Ascend a process of Ray must be an actor that Ray has
    given one NPU; one outside of Ray takes the first that it sees. The model families of mindone and transformers are
    imported as they are asked for from now on.

    Args:
        kind: of the device.
        stage: whose actor this process is; of use on Ascend only.
        options: the same.

    Raises:
        DeviceError: what Ray has assigned and what this process can see are not one and the same NPU.
    """
    os.environ.update({name: value for name, value in PROCESS_ENVIRONMENT.items() if name not in os.environ})
    # MindSpore's cache of graphs knows them by nothing but the order in which a process compiles them, and here that is
    # the order in which batches come: the graph of another shape or model would be run.
    os.environ["MS_COMPILER_CACHE_ENABLE"] = "0"
    lazy_mindone.put_off()
    if kind == "ascend":
        npu = _own_npu()
        # Compiled operators are kept from one actor to the next on the same card, and for each stage by itself: two
        # processes that share a card must not write one folder.
        folder = cache_folder() / "ascend" / f"npu-{npu}-{stage}"
        for name in ("ASCEND_CACHE_PATH", "ASCEND_WORK_PATH"):
            os.environ.setdefault(name, str(folder))
        folder.mkdir(parents=True, exist_ok=True)
        use_card(options or DeviceOptions())
    else:
        import mindspore as ms

        ms.set_device("CPU")
        from workers.device import cpu_kernels

        cpu_kernels.install()
    lazy_transformers.install()
    lazy_mindone.install()


def _own_npu() -> str:
    """Which card device 0 is, as the node counts them."""
    import ray

    visible = os.environ.get(VISIBLE_NPUS)
    if not ray.is_initialized():
        return (visible or "0").split(",")[0]
    return pinned_npu(assigned_npus(), visible)


@functools.cache
def use_card(options: DeviceOptions) -> None:
    """Ask MindSpore for the first card that this process sees. Each of these settings can be made once."""
    import mindspore as ms

    ms.set_device("Ascend", 0)
    if options.memory_gb is not None:
        ms.runtime.set_memory(max_size=f"{options.memory_gb:g}GB")
    if options.deterministic:
        ms.set_deterministic(True)


def assigned_npus() -> list[str]:
    """Ids of the NPUs that Ray has given this process, as its node counts them; none outside of Ray."""
    import ray

    if not ray.is_initialized():
        return []
    return list(ray.get_runtime_context().get_accelerator_ids().get("NPU", []))


def pinned_npu(assigned: Sequence[str], visible: str | None) -> str:
    """The one NPU that an actor has been given and sees.

    Args:
        assigned: ids as Ray counts them.
        visible: value of `ASCEND_RT_VISIBLE_DEVICES`.

    Raises:
        DeviceError: the two differ, or it is not one.
    """
    if len(assigned) != 1:
        raise DeviceError(f"Ray has given this process {len(assigned)} NPUs ({', '.join(assigned)}), not one")
    if visible != assigned[0]:
        raise DeviceError(
            f"Ray has given this process NPU {assigned[0]}, but {VISIBLE_NPUS} is {visible!r}, so it would use another "
            "one; take that variable, and RAY_EXPERIMENTAL_NOSET_ASCEND_RT_VISIBLE_DEVICES, out of the job's "
            "runtime_env and out of the environment that Ray was started in"
        )
    return assigned[0]


def report() -> dict[str, Any]:
    """What this process runs on, for the run's record: host, NPU, chip and its memory in GiB; None: no such thing."""
    found: dict[str, Any] = {"host": socket.gethostname(), "npu": None, "chip": None, "memory_gib": None}
    # It is imported where a model has been loaded; nothing is imported for a report.
    ms = sys.modules.get("mindspore")
    if ms is None or ms.get_context("device_target") != "Ascend":
        return found
    card = ms.hal.get_device_properties(0)
    npu = _own_npu()
    return {**found, "npu": npu, "chip": card.name, "memory_gib": round(card.total_memory / 2**30, 1)}


def number_type(kind: DeviceKind) -> str:
    """NumPy's name for the type of weights and embeddings.

    float16 on Ascend, float32 on CPU (whose bfloat16 fails and float16 is slow).
    """
    return "float16" if kind == "ascend" else "float32"


def dtype(kind: DeviceKind) -> Any:
    """MindSpore's `number_type`."""
    import mindspore as ms

    return getattr(ms, number_type(kind))
