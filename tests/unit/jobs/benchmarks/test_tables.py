"""Tables are Markdown: numbers to the right, and memory held against the first."""

from __future__ import annotations

from jobs.benchmarks import tables


def test_a_table_has_its_text_to_the_left_and_its_numbers_to_the_right() -> None:
    made = tables.table(("kind", "rows"), [("csv", "1"), ("jsonl", "2")], text=("kind",))
    assert made == "| kind | rows |\n|---|---:|\n| csv | 1 |\n| jsonl | 2 |"


def test_memory_is_in_mib_and_held_against_the_first() -> None:
    assert tables.peak_cells(300 << 20, 200 << 20) == ("300", "1.50")
