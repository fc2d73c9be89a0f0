"""Statistics of embeddings: a seeded sample, exact moments, and a file that gives back what was kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jobs.evaluation import statistics
from jobs.evaluation.distances import unit
from jobs.evaluation.statistics import gather, load, save
from manifests.errors import UsageError

ROWS = np.random.default_rng(0).standard_normal((700, 5)).astype(np.float16)


def test_all_are_counted_and_a_sample_of_many_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "SAMPLE", 100)
    found = gather(np.array_split(ROWS, 9), "it")
    assert (found.count, found.sample.shape) == (700, (100, 5))
    np.testing.assert_allclose(found.mean, unit(ROWS).mean(0))
    rows = {row.tobytes() for row in unit(ROWS).astype(np.float32)}
    chosen = {row.tobytes() for row in found.sample}
    assert len(chosen) == 100
    assert chosen < rows


def test_a_file_gives_back_what_was_kept(tmp_path: Path) -> None:
    kept = gather([ROWS], "it")
    save(kept, str(tmp_path / "s.npz"))
    found = load(str(tmp_path / "s.npz"))
    assert (found.count, found.encoder) == (700, "it")
    for name in ("mean", "covariance", "sample"):
        np.testing.assert_array_equal(getattr(found, name), getattr(kept, name))


def test_other_files_and_no_images_get_a_sentence(tmp_path: Path) -> None:
    np.savez(tmp_path / "fid.npz", mu=np.zeros(64), sigma=np.zeros((64, 64)))
    (tmp_path / "text.npz").write_text("no")
    for name in ("fid", "text"):
        with pytest.raises(UsageError, match="no statistics of this program"):
            load(str(tmp_path / f"{name}.npz"))
    with pytest.raises(UsageError, match="no such file"):
        load(str(tmp_path / "gone.npz"))
    with pytest.raises(UsageError, match="there is no image"):
        gather([], "it")
