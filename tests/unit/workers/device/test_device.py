"""Choosing a device, and that a process and Ray mean the same NPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests.config import RunConfig
from manifests.errors import DeviceError, UsageError
from workers.device import device
from workers.device.device import DeviceOptions, choose_device, pinned_npu


def config(**settings: object) -> RunConfig:
    return RunConfig.model_validate({"manifest": ("m",), "output": "o", **settings})


def test_auto_takes_ascend_where_there_is_any_and_says_why() -> None:
    assert choose_device(config(), 16).kind == "ascend"
    assert choose_device(config(), 16).reason == "the cluster offers 16 NPU"
    assert choose_device(config(), 0).kind == "cpu"
    assert choose_device(config(device="cpu"), 16).kind == "cpu"


def test_ascend_that_is_not_there_is_refused_with_what_to_do() -> None:
    with pytest.raises(UsageError, match="no node of the cluster offers the resource NPU; start Ray"):
        choose_device(config(device="ascend"), 0)


def test_a_process_without_a_cluster_takes_a_card_where_the_machine_has_one() -> None:
    assert device.device_here("ascend") == "ascend"
    assert device.device_here("cpu") == "cpu"
    assert device.device_here("auto") == ("ascend" if list(Path("/dev").glob("davinci[0-9]*")) else "cpu")


def test_outside_of_ray_the_card_is_the_first_that_the_process_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    for visible, npu in ((None, "0"), ("6", "6"), ("5,3", "5")):
        if visible is not None:
            monkeypatch.setenv(device.VISIBLE_NPUS, visible)
        else:
            monkeypatch.delenv(device.VISIBLE_NPUS, raising=False)
        assert device._own_npu() == npu


def test_a_process_must_see_the_one_npu_that_ray_has_given_it() -> None:
    assert pinned_npu(["3"], "3") == "3"
    with pytest.raises(DeviceError, match="given this process NPU 3, but ASCEND_RT_VISIBLE_DEVICES is '0,1,2,3'"):
        pinned_npu(["3"], "0,1,2,3")
    with pytest.raises(DeviceError, match="is None"):
        pinned_npu(["3"], None)
    with pytest.raises(DeviceError, match="given this process 0 NPUs"):
        pinned_npu([], "0")
    with pytest.raises(DeviceError, match=r"2 NPUs \(5, 3\), not one"):
        pinned_npu(["5", "3"], "5,3")


def test_shares_of_a_card_fit_its_memory() -> None:
    shared = config(share_devices=True, device_memory=32, deterministic=True)
    prior, decoder = (DeviceOptions.of(shared, stage) for stage in ("prior", "decoder"))
    assert prior.deterministic
    assert prior.memory_gb is not None
    assert decoder.memory_gb is not None
    assert prior.memory_gb + decoder.memory_gb < 32
    assert DeviceOptions.of(config(device_memory=32), "prior").memory_gb is None, "a card of its own is all its own"


def test_a_report_of_a_process_without_mindspore_names_the_host() -> None:
    assert device.report().keys() == {"host", "npu", "chip", "memory_gib"}
