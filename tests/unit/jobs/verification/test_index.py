"""What is wrong with an index is named: rows that are changed, missing, doubled, or of another manifest."""

from __future__ import annotations

from manifests.config import RunConfig
from tests.unit.jobs.verification.damage import edit_index, with_column, words


def test_an_edited_index_is_found(config: RunConfig) -> None:
    edit_index(config, 0, with_column("prompt", lambda values: ["forged", *values[1:]]))
    told = words(config)
    assert "sample 000000000: prompt is 'forged', the manifest says 'prompt 0'" in told
    assert "000000000.json is not the record in the index" in told


def test_doubled_missing_and_extra_rows_are_named(config: RunConfig) -> None:
    edit_index(config, 0, with_column("key", lambda values: [values[0], values[0], *values[2:]]))
    told = words(config)
    assert "key 000000000 is there 2 times" in told
    assert "sample 000000001 is missing" in told
    edit_index(config, 1, lambda table: table.slice(1))
    assert "sample 000010000 is missing" in words(config)
    edit_index(config, 2, with_column("key", lambda values: ["odd", *values[1:]]))
    assert "sample odd is not planned" in words(config)


def test_a_row_that_claims_to_have_failed_validation_is_found(config: RunConfig) -> None:
    edit_index(config, 1, with_column("status", lambda values: ["failed_to_validate", *values[1:]]))
    assert "validation of the manifest says 'success'" in words(config)
