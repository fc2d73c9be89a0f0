"""What the actors of `card_generate.py` have told: a file of JSON lines for each process, in one folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def told(folder: Path) -> list[dict[str, Any]]:
    """All events so far, by their times. A line that is just being written is none yet."""
    lines = [line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines(keepends=True)]
    return sorted((json.loads(line) for line in lines if line.endswith("\n")), key=lambda event: event["time"])
