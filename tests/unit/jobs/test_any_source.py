"""Any objects at all: `jobs/make_manifest.py` makes a manifest that plans every one of them, or says what is wrong."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.make_manifest import main
from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.planning.plan import plan
from manifests.requests.schema import REQUEST_NAMES

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["a.png", "512", 64, "white", '[{"text": "a"}]', "\ud800"]),
)
KEYS = st.sampled_from(["text", "image", "weight", "path", "bytes", "other"])
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=2))
ROWS = st.dictionaries(st.sampled_from([*REQUEST_NAMES, "x", ""]), VALUES, max_size=3)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ROWS, min_size=1, max_size=3))
def test_objects_become_a_manifest_or_an_error_that_names_what_is_wrong(rows: list[dict[str, Any]]) -> None:
    rows[0]["prompt"] = "a cat"
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "f.jsonl"), Path(folder, "m.parquet")
        source.write_text("\n".join(map(json.dumps, rows)))
        refusal = None
        try:
            main(["--jsonl", str(source), "--output", str(made)])
        except UsageError as error:
            refusal = str(error)
        if refusal is None:
            assert plan(RunConfig(manifest=(str(made),), output=folder)).requests == len(rows)
        else:
            assert "column " in refusal or "row " in refusal
            assert not made.exists()
