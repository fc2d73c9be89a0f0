"""Examples that Hypothesis makes up are the same in every process of a test run, whatever it has imported before."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.readmes import ROOT


def examples() -> list[int]:
    seen: list[int] = []

    @given(st.lists(st.integers(), max_size=20))
    def collect(numbers: list[int]) -> None:
        seen.extend(numbers)

    collect()
    return seen


@pytest.mark.skipif(settings.get_current_profile_name() != "same", reason="others are asked for")
def test_what_a_process_has_imported_changes_no_example(monkeypatch: pytest.MonkeyPatch) -> None:
    before = examples()
    for file in sorted((ROOT / "infra").rglob("*.py")):
        module = ModuleType(file.stem)
        module.__file__ = str(file)
        monkeypatch.setitem(sys.modules, f"another.{file.stem}", module)
    assert examples() == before
    assert len(before) > 100
