"""`jobs/benchmark.py duplicates` from end to end, at sizes that say nothing about speed."""

from __future__ import annotations

import pytest

from jobs.benchmark import main
from manifests.errors import UsageError


def test_every_size_gets_a_line_and_all_copies_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    main(["duplicates", "--hashes", "2000", "4000", "--embeddings", "500"])
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [(row[0], row[1], row[3]) for row in cells] == [
        ("image_phash:4", "2,000", "1.0000"),
        ("image_phash:4", "4,000", "1.0000"),
        ("clip:0.95", "500", "1.0000"),
    ]


def test_sizes_of_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="give 100 or more"):
        main(["duplicates", "--hashes", "7"])
