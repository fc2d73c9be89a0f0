"""Columns that say how an image stands among the others of its output: near duplicates, and the best of a request.

Unlike scores they are of all images together: a shard that is made or tried again later has none until they are made
anew. They come behind the scores, in the order of RANKINGS; which rule has given them is in `_run/rankings.json`.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from manifests import storage

DUPLICATE_GROUP, DUPLICATE_RANK, RANK_IN_REQUEST = "duplicate_group", "duplicate_rank", "rank_in_request"

#: Under an output; `columns` in it are those that some shards have at least.
RULES_FILE = "_run/rankings.json"


def _field(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
    return pa.field(name, kind, metadata={"description": meaning})


RANKINGS: dict[str, pa.Field] = {
    DUPLICATE_GROUP: _field(
        DUPLICATE_GROUP,
        pa.string(),
        "smallest key of the images that are near duplicates of each other, its own where there are no others; null "
        "where it could not be compared",
    ),
    DUPLICATE_RANK: _field(
        DUPLICATE_RANK, pa.int32(), "place among the near duplicates, from 0, which is the one to keep"
    ),
    RANK_IN_REQUEST: _field(
        RANK_IN_REQUEST, pa.int32(), "place among the images of its request by a score, from 0, which is the best"
    ),
}

#: What a person is told who asks for one that a shard has not.
HINT = "python jobs/score.py with --duplicates or --best-of-request adds it, also to shards that were made since"


def read_rules(output: str) -> dict[str, Any]:
    """What RULES_FILE says; empty where nothing was ranked."""
    try:
        content: dict[str, Any] = json.loads(storage.read_bytes(storage.join(output, RULES_FILE)))
    except FileNotFoundError:
        return {}
    return content


def fields_at(output: str) -> list[pa.Field]:
    """The columns that an output has been given, in their order; a manifest's own of such a name is not among them."""
    known = read_rules(output).get("columns", ())
    return [field for name, field in RANKINGS.items() if name in known]
