"""Which device the pools run on, and how a process takes it before mindone is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

from manifests.config import RunConfig
from manifests.errors import UsageError
from workers import lazy_mindone

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


def choose_device(config: RunConfig, cluster_resources: Mapping[str, float]) -> DeviceChoice:
    """Decide from `--device` and what the Ray cluster offers.

    Raises:
        UsageError: Ascend is asked for and no node offers the resource `NPU`.
    """
    npus = int(cluster_resources.get("NPU", 0))
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


def take(kind: DeviceKind) -> None:
    """Make this process's MindSpore use the device; must come before mindone is imported, and only once.

    On CPU the kernels that the backend lacks are supplied. On Ascend, Ray has made one device visible, which is
    device 0 here. mindone's model families are imported as they are asked for from now on.
    """
    os.environ.update({name: value for name, value in PROCESS_ENVIRONMENT.items() if name not in os.environ})
    import mindspore as ms

    if kind == "ascend":
        ms.set_device("Ascend", 0)
    else:
        ms.set_device("CPU")
        from workers import cpu_kernels

        cpu_kernels.install()
    lazy_mindone.install()


def dtype(kind: DeviceKind) -> Any:
    """MindSpore dtype of the weights: float16 on Ascend, float32 on CPU (whose bfloat16 fails and float16 is slow)."""
    import mindspore as ms

    return ms.float16 if kind == "ascend" else ms.float32
