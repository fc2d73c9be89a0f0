"""A hundred stories of a job that is killed, refused, overtaken and lied to; `python -m tests.faults` has more."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from jobs.leases.fence import Fence
from tests.faults.simulation.seeds import KINDS, tell, undisturbed

pytestmark = pytest.mark.faults

SEEDS = 100


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return undisturbed(tmp_path_factory.mktemp("whole") / "disk")


def tell_all(folder: Path, whole: dict[str, bytes]) -> Counter[str]:
    return sum((tell(seed, folder, whole) for seed in range(SEEDS)), Counter())


def test_whatever_happens_the_last_start_makes_the_same_bytes(tmp_path: Path, whole: dict[str, bytes]) -> None:
    faults = tell_all(tmp_path / "story", whole)
    assert set(KINDS) <= faults.keys()
    assert faults.total() > SEEDS


def test_one_seed_is_one_story(tmp_path: Path, whole: dict[str, bytes]) -> None:
    assert tell(7, tmp_path / "one", whole) == tell(7, tmp_path / "two", whole)


def test_a_fault_of_the_job_is_found_and_names_its_seed(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fence, "check", lambda fence: None)
    with pytest.raises(AssertionError, match=r"^seed \d+: "):
        tell_all(tmp_path / "story", whole)
