"""Success is counted from the committed files against the plan."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.engine.ledger import Ledger
from jobs.run.outcome import EXAMPLES, count_outcome, failures_before, staged_failures
from manifests.commit import FailureKind, staged_parts
from manifests.config import RunConfig
from manifests.errors import IncompleteRunError
from manifests.planning.plan import Plan, batches_of, plan
from tests.unit import finished_run
from workers.stages.shards import seal, write_part


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """A manifest whose rows all fail validation, so that no model is needed to finish it."""
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"id": [f"r{i}" for i in range(5)], "task": ["paint"] * 5, "prompt": ["x"] * 5}), path)
    return RunConfig(manifest=(str(path),), output=str(tmp_path / "out"))


@pytest.fixture
def planned(config: RunConfig) -> Plan:
    return plan(config)


def commit(config: RunConfig, planned: Plan) -> None:
    for batch in batches_of(config, planned.windows):
        write_part(batch, config.output)
    for number, shard in enumerate(planned.shards):
        seal(number, shard.batches, config.output, config)


def test_failed_rows_are_counted_with_a_few_of_their_reasons(config: RunConfig, planned: Plan) -> None:
    commit(config, planned)
    outcome = count_outcome(config.output, planned)
    assert (outcome.written, outcome.failed) == (0, {"failed_to_validate": 5})
    shown = outcome.examples["failed_to_validate"]
    assert len(shown) == EXAMPLES
    assert shown[0].startswith("r0: ")
    assert "paint" in shown[0]


def test_a_shard_that_is_not_sealed_makes_the_run_incomplete(config: RunConfig, planned: Plan) -> None:
    with pytest.raises(IncompleteRunError, match="1 of 1 shards are not sealed"):
        count_outcome(config.output, planned)


def test_a_shard_with_other_counts_than_planned_makes_the_run_incomplete(config: RunConfig, planned: Plan) -> None:
    commit(config, planned)
    path = Path(config.output) / "00000_stats.json"
    stats = json.loads(path.read_text())
    path.write_text(json.dumps({**stats, "count": 4, "failed": 4}))
    with pytest.raises(IncompleteRunError, match="5 rows are planned"):
        count_outcome(config.output, planned)


def test_a_share_is_counted_by_its_own_shards(config: RunConfig, planned: Plan) -> None:
    assert count_outcome(config.output, planned, []).written == 0
    commit(config, planned)
    assert count_outcome(config.output, planned, [0]).failed == {"failed_to_validate": 5}


def test_the_failures_of_an_output_are_those_of_shards_parts_and_the_plan(tmp_path: Path) -> None:
    # Shards of two batches; the last of the first is the rejected row's.
    config = finished_run.make_config(tmp_path, max_failed="5")
    planned = plan(config)
    broken = ("r0", "r3", "r4")
    for batch in batches_of(config, planned.windows):
        write_part(finished_run.made(batch, config, broken), config.output)
    batches = {number: shard.batches for number, shard in enumerate(planned.shards)}
    parts = staged_parts(config.output)
    ledger = Ledger(batches, (), parts)
    staged = failures_before(config, planned, ledger)
    assert failures(staged) == {"failed_to_validate": 1, "failed_to_generate": 4}
    assert failures(failures_before(config.model_copy(update={"max_failed": None}), planned, ledger)) == {
        "failed_to_validate": 1
    }
    seal(0, batches[0], config.output, config)
    ledger = Ledger(batches, {0}, {number: found for number, found in parts.items() if number})
    assert failures(failures_before(config, planned, ledger)) == failures(staged)
    examples = {one.example for one in failures_before(config, planned, ledger)}
    assert {"r0: not finite", "r4: not finite"} <= examples
    # Those that are tried again are made instead of counted, wherever they lie.
    again = config.model_copy(update={"retry_errors": True})
    ledger.drop(staged_failures(config.output, ledger))
    assert failures(failures_before(again, planned, ledger)) == {"failed_to_validate": 1}
    assert 0 < ledger.missing < sum(batches.values()) - batches[0]


def failures(kinds: list[FailureKind]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for kind in kinds:
        counted[kind.status] += kind.count
    return counted
