"""`jobs/benchmark.py embeddings` from end to end, at sizes that say nothing about speed."""

from __future__ import annotations

import pytest

from jobs.benchmark import main
from jobs.benchmarks import embeddings
from manifests.errors import UsageError


def test_every_store_gets_a_line_and_bytes_stay_near_the_bare_vectors(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "_RATIO_ROWS", 600)
    main(["embeddings", "--rows", "300", "--fragment", "20", "--lookups", "2", "--width", "8"])
    told = capsys.readouterr().out.splitlines()
    ratios = [float(word.split()[1]) for word in told[1].split(", ")]
    assert all(ratio < 1.1 for ratio in ratios)
    cells = told[-1].split("|")[1:-1]
    assert (cells[0].strip(), cells[-1].strip()) == ("300", "1.00")
    # The process's first lookup opens the files; the next ones may take less than what is printed.
    first, together, scattered = map(float, cells[2:5])
    assert first > 0
    assert min(together, scattered) >= 0


def test_sizes_of_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="--lookups: 2 or more"):
        main(["embeddings", "--lookups", "1"])
