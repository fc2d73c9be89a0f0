"""CSV and TSV: what one program has written is read as it was, whoever wrote quotes how."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.errors import ManifestError
from manifests.making.delimited import Said, delimited, look_at


def read(folder: Path, content: str, delimiter: str, said: Said = "auto") -> tuple[list[tuple[str | None, ...]], str]:
    path = folder / "file"
    path.write_bytes(content.encode())
    stream = delimited([str(path)], delimiter, said)
    rows = [tuple(row.values()) for source in stream.tables for row in source.table.to_pylist()]
    return rows, "\n".join(stream.notes)


LEADING = 'prompt\tcategory\na cat\tA\n"Brave New World poster\tB\na dog\tC\na bird saying "hi"\tD\na fish\tE\n'


def test_a_tsv_file_is_read_as_it_is_written(tmp_path: Path) -> None:
    rows, told = read(tmp_path, LEADING, "\t")
    assert [row[0] for row in rows] == ["a cat", '"Brave New World poster', "a dog", 'a bird saying "hi"', "a fish"]
    assert "quotes are part of the values (2 lines have some)" in told
    rows, _ = read(tmp_path, 'prompt\tcategory\n"Stop" painted on a wall\tA\na dog\tB\n', "\t")
    assert rows == [('"Stop" painted on a wall', "A"), ("a dog", "B")]


@pytest.mark.parametrize(
    "content",
    [
        'a\tb\n"open\t1\nclosed"\t2\n',  # a quote that closes lines later, where each line is a row for itself
        'a\tb\n"whole"\t1\nnone\t2\n',  # no writer of quotes would have put them there
        'a\n"one\ntwo"\n',
        'a\tb\n5" screen\t1\n',
        'a\tb\n"x" y\t1\n',
        'a\tb\n"never closed\t1\n',
    ],
)
def test_quotes_that_no_writer_of_quotes_has_put_there_are_part_of_tsv_values(tmp_path: Path, content: str) -> None:
    rows, told = read(tmp_path, content, "\t")
    assert rows == [tuple(line.split("\t")) for line in content.splitlines()[1:]]
    assert "--quotes yes" in told


TRICKY = [["prompt", "x"], ['a "big" cat', "1"], ["two\nlines", "2"], ["tab\there, comma", "3"], ["plain", ""]]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("delimiter", [",", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_pythons_writer_quotes_is_unquoted_in_both_formats(
    tmp_path: Path, quoting: int, delimiter: str, end: str
) -> None:
    sink = io.StringIO()
    csv.writer(sink, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows(TRICKY)  # type: ignore[arg-type]
    rows, told = read(tmp_path, sink.getvalue(), delimiter)
    assert [(row[0], row[1] or "") for row in rows] == [tuple(row) for row in TRICKY[1:]]
    assert "1 rows run over several lines because of quotes, the first is row 1, lines 3 to 4" in told


def test_csv_values_that_only_begin_with_quotes_keep_them(tmp_path: Path) -> None:
    rows, told = read(tmp_path, LEADING.replace("\t", ","), ",")
    assert [row[0] for row in rows] == ["a cat", '"Brave New World poster', "a dog", 'a bird saying "hi"', "a fish"]
    assert "--quotes yes" in told
    rows, _ = read(tmp_path, 'prompt,x\n"Stop" painted,1\n', ",")
    assert rows == [('"Stop" painted', "1")]


def test_csv_rows_that_were_merged_are_told_with_their_lines(tmp_path: Path) -> None:
    rows, told = read(tmp_path, 'prompt,x\nfirst,1\n"open,2\nclosed",3\n', ",")
    assert rows == [("first", "1"), ("open,2\nclosed", "3")]
    assert "1 rows run over several lines because of quotes, the first is row 1, lines 3 to 4" in told


def test_a_quote_out_of_place_is_told_where_a_file_can_be_read_in_no_other_way(tmp_path: Path) -> None:
    _, told = read(tmp_path, 'prompt,x\n"a, b",1\n"Stop" painted,2\n', ",")
    assert "row 1 has a quote that neither opens nor closes a value" in told


def test_the_person_decides_for_both_formats(tmp_path: Path) -> None:
    for delimiter in ",\t":
        content = f'a{delimiter}b\n"x"{delimiter}1\n'
        assert read(tmp_path, content, delimiter, "yes")[0] == [("x", "1")]
        assert read(tmp_path, content, delimiter, "no")[0] == [('"x"', "1")]


def test_a_quote_that_is_never_closed_is_named_by_its_line(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"opens in line 3 and is never closed.*--quotes no"):
        read(tmp_path, 'prompt\na\n"open\nb\nc\n', ",")
    rows, _ = read(tmp_path, 'prompt\tx\na\t1\n"open\t2\n', "\t")
    assert rows == [("a", "1"), ('"open', "2")]
    with pytest.raises(ManifestError, match="never closed"):
        read(tmp_path, 'prompt\tx\na\t1\n"open\t2\n', "\t", "yes")


def test_a_row_that_does_not_fit_its_header_names_the_other_reading(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"row 0: Expected 2 columns, got 3.*--quotes yes"):
        read(tmp_path, 'a\tb\n"x\ty"z\t1\n', "\t")


def test_of_many_files_only_some_are_named(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.tsv" for number in range(9)]
    for path in paths:
        path.write_text('a\tb\n"x" y\t1\n')
    notes = delimited([str(path) for path in paths], "\t").notes
    assert len(notes) == 4
    assert notes[-1] == "the same of 6 more files"


CELL = st.text(st.sampled_from('ab",\t\n é'), max_size=6)


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6), quote_all=st.booleans())
def test_the_scan_of_quotes_agrees_with_pythons_csv(rows: list[tuple[str, str]], quote_all: bool) -> None:
    sink = io.StringIO()
    quoting = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    csv.writer(sink, quoting=quoting, lineterminator="\n").writerows([("h", "i"), *rows])  # type: ignore[arg-type]
    found = look_at((line.encode() for line in sink.getvalue().splitlines(keepends=True)), ",")
    assert (found.malformed, found.unclosed) == (None, None)
    assert found.merged == sum(any("\n" in cell for cell in row) for row in rows)
    assert found.wrap(",")
