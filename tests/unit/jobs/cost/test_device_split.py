"""The prior's part of the devices, by what an earlier run has measured."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cost.device_split import split_devices
from jobs.cost.step_times import BucketTimes, StepTimes
from jobs.engine.pools import Pools
from jobs.run import run_folder
from manifests.config import RunConfig
from manifests.errors import UsageError
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


def measure(config: RunConfig, planned: Plan, device: str = "ascend") -> None:
    """A run has found the prior to take a quarter of the time."""
    [bucket] = planned.buckets
    seconds = {"prior": 2.0, "decoder": 6.0}
    times = BucketTimes(bucket=bucket, batches=2, images=8, size=4, seconds=seconds, bytes_per_image=1.0)
    record = StepTimes(device=device, batch_size=4, prior_actors=1, decoder_actors=1, buckets=(times,))
    run_folder.write_times(config, record)


def split(config: RunConfig, planned: Plan, kind: DeviceKind = "ascend") -> tuple[Pools, list[str]]:
    said: list[str] = []
    return split_devices(config, planned, kind, NODES, run_folder.known_times(config), said.append), said


def test_without_a_measurement_the_prior_gets_an_eighth(config: RunConfig, planned: Plan) -> None:
    pools, said = split(config, planned)
    assert (pools.prior.most, said) == (2, [])


def test_a_start_goes_by_what_the_one_before_has_measured(config: RunConfig, planned: Plan) -> None:
    measure(config, planned)
    pools, said = split(config, planned)
    assert (pools.prior.most, pools.beside_prior) == (4, 12)
    assert said == [f"of the device time 25% is the prior's, by {config.output}/_run/times.json"]


def test_another_output_can_be_named(config: RunConfig, planned: Plan, tmp_path: Path) -> None:
    before = config.model_copy(update={"output": str(tmp_path / "before")})
    measure(before, planned)
    assert split(config.model_copy(update={"times_of": before.output}), planned)[0].prior.most == 4
    with pytest.raises(UsageError, match=r"option --times-of: .*out has no _run/times.json that can be used: no run"):
        split(config.model_copy(update={"times_of": config.output}), planned)


@pytest.mark.parametrize(("device", "kind"), [("cpu", "ascend"), ("ascend", "cpu")])
def test_times_of_another_kind_of_device_say_nothing(
    config: RunConfig, planned: Plan, device: str, kind: DeviceKind
) -> None:
    measure(config, planned, device)
    assert split(config, planned, kind)[1] == []


def test_a_record_that_cannot_be_read_stops_no_run_that_did_not_ask_for_it(config: RunConfig, planned: Plan) -> None:
    file = Path(config.output) / "_run" / "times.json"
    file.parent.mkdir(parents=True)
    for content in ("{", '{"device": "ascend"}'):
        file.write_text(content)
        assert split(config, planned)[0].prior.most == 2
        with pytest.raises(UsageError, match="option --times-of"):
            split(config.model_copy(update={"times_of": config.output}), planned)
