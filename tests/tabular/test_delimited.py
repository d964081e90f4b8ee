"""Rows of text files: what is understood, and the line and the advice where something is not."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import UsageError
from site_worker.tabular.chunk import CHUNK_ROWS
from site_worker.tabular.delimited import MAX_LINE_BYTES, delimiter_of, open_delimited, records
from site_worker.tabular.schema import DELIMITERS, Delimiter, Files
from tests.tabular.bench import written

NAMES = ("died", "age")


def rows(path: Path, delimiter: str = ",") -> list[tuple[int, list[str]]]:
    return list(records(path, delimiter))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a,b\n1,2\n", [(1, ["a", "b"]), (2, ["1", "2"])]),
        (b"a,b\r\n1,2", [(1, ["a", "b"]), (2, ["1", "2"])]),
        (b"\xef\xbb\xbfa,b\n", [(1, ["a", "b"])]),
        (b"\n\na,b\n\n  \n1,2\n\n", [(3, ["a", "b"]), (6, ["1", "2"])]),
        (b'"a, b",c\n', [(1, ["a, b", "c"])]),
        (b'"say ""no""",c\n', [(1, ['say "no"', "c"])]),
        (b'1, "x, y"\n', [(1, ["1", "x, y"])]),
        (b'"two\nlines",2\n3,4\n', [(1, ["two\nlines", "2"]), (3, ["3", "4"])]),
        (b'5 feet 4",x\n', [(1, ['5 feet 4"', "x"])]),
        (",ü,\n".encode(), [(1, ["", "ü", ""])]),
        (b",,\n", [(1, ["", "", ""])]),
        (b"", []),
    ],
)
def test_rows_and_the_lines_at_which_they_begin(
    tmp_path: Path, content: bytes, expected: list[tuple[int, list[str]]]
) -> None:
    assert rows(written(tmp_path, content)) == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a,b\n1,M\xfcller\n", "row 2, is not UTF-8; if the file is Latin-1: iconv -f WINDOWS-1252 -t UTF-8"),
        ("a,b\n".encode("utf-16"), "is UTF-16; convert it with: iconv -f UTF-16"),
        (b"a,b\n1,\x00\n", "row 2, has a NUL byte"),
        (b'a,b\n1,2\n"3,4\n5,6\n', "row 3, has a quoted cell that does not end"),
        (b'a,b\n"1"x,2\n', "row 2, has a quoted cell that does not end, or goes on behind"),
        (b"a,b\r1,2\r", "row 1, has a carriage return inside"),
        (b"a,b\n" + b"1" * MAX_LINE_BYTES, f"row 2, is longer than {MAX_LINE_BYTES} bytes"),
        (b"a,b\n" + b"1" * 200_000 + b",2\n", "row 2, has a cell of more than 131072 signs"),
        (b'a,b\n1,"' + b"x\n" * 100_000, "row 2, has a cell of more than 131072 signs"),
    ],
)
def test_what_is_no_row_is_refused_with_its_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UsageError) as caught:
        rows(path)
    assert str(caught.value).startswith(f"{path}")
    assert said in str(caught.value)


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        rows(tmp_path / "absent.csv")


@given(st.binary(max_size=300))
def test_any_bytes_are_rows_or_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = written(tmp_path_factory.getbasetemp(), content)
    for delimiter in DELIMITERS:
        try:
            found = rows(path, delimiter)
        except UsageError:
            continue
        assert all(1 <= line <= content.count(b"\n") + 1 for line, _ in found)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(st.lists(st.lists(TEXT, min_size=2, max_size=2), max_size=8), st.sampled_from(DELIMITERS))
def test_what_is_quoted_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, table: list[list[str]], delimiter: Delimiter
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(table)
    path = written(tmp_path_factory.getbasetemp(), text.getvalue())
    assert [cells for _, cells in records(path, delimiter)] == table


def opened(path: Path, files: Files | None = None, required: tuple[str, ...] = NAMES) -> list[dict[str, list[Any]]]:
    source = open_delimited(path, files or Files(), required)
    chunks = source.chunks(dict.fromkeys(required, False))
    return [{name: list(cells) for name, cells in chunk.columns.items()} for chunk in chunks]


@pytest.mark.parametrize(
    ("content", "files", "said"),
    [
        ("", Files(), "is empty; put the hospital's rows into it"),
        ("\n \n", Files(), "is empty"),
        ("died,years\n1,50\n", Files(), "has no column 'age' among the 2 of row 1 (split at commas)"),
        ("died;age\n1;50\n", Files(), "has no column 'died' among the 1 of row 1 (split at commas)"),
        ("died,age\n1,50\n", Files(delimiter=";"), "has no column 'died' among the 1 of row 1 (split at ';')"),
        ("died,age,age\n1,5,5\n", Files(), "columns 2 and 3 have the same name in row 1"),
        ("1,50\n0,40\n", Files(header=False, names=("died", "age", "sex")), "row 1 has 2 cells when split at commas"),
    ],
)
def test_a_file_whose_columns_do_not_fit(tmp_path: Path, content: str, files: Files, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        opened(written(tmp_path, content), files)
    assert said in str(caught.value)
    assert "50" not in str(caught.value)  # row 1 of a file without a header is somebody's data


@pytest.mark.parametrize("row", ["1", "1,50,x", "1,50,"])
def test_a_row_of_another_width_is_named(tmp_path: Path, row: str) -> None:
    path = written(tmp_path, f"died,age\n0,40\n{row}\n")
    with pytest.raises(UsageError, match=f"row 3, has {row.count(',') + 1} cells instead of 2"):
        opened(path)


def test_columns_are_found_by_name_wherever_they_are(tmp_path: Path) -> None:
    path = written(tmp_path, ",age, died ,,ward\n0,40,1,x,A\n1,50,0,y,B\n")
    assert opened(path) == [{"died": ["1", "0"], "age": ["40", "50"]}]


def test_without_a_header_the_first_row_counts(tmp_path: Path) -> None:
    path = written(tmp_path, "1,40\n0,50\n")
    assert opened(path, Files(header=False, names=NAMES)) == [{"died": ["1", "0"], "age": ["40", "50"]}]


@pytest.mark.parametrize(("content", "delimiter"), [(f"died{one}age\n1{one}5\n", one) for one in DELIMITERS])
def test_the_delimiter_is_the_one_that_makes_the_declared_columns(tmp_path: Path, content: str, delimiter: str) -> None:
    path, auto = written(tmp_path, content), Files(delimiter="auto")
    assert delimiter_of(path, auto, NAMES) == delimiter
    assert opened(path, auto) == [{"died": ["1"], "age": ["5"]}]
    bare = written(tmp_path, content.splitlines()[1], "bare.csv")
    assert delimiter_of(bare, Files(header=False, names=NAMES, delimiter="auto"), NAMES) == delimiter


def test_a_delimiter_that_quotes_rule_out_is_passed_over(tmp_path: Path) -> None:
    path = written(tmp_path, '"died";"age"\n1;5\n')
    assert delimiter_of(path, Files(delimiter="auto"), NAMES) == ";"
    with pytest.raises(UsageError, match=r"row 1, has a quoted cell .* correct files.delimiter"):
        opened(path)


def test_a_tsv_file_has_tabs_whatever_is_declared(tmp_path: Path) -> None:
    assert opened(written(tmp_path, "died\tage\n1\t5\n", "north.tsv")) == [{"died": ["1"], "age": ["5"]}]


def test_rows_come_in_chunks_with_their_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "died,age\n" + "\n" + "1,50\n" * (CHUNK_ROWS + 3))
    chunks = list(open_delimited(path, Files(), NAMES).chunks({"age": True}))
    assert [len(chunk.rows) for chunk in chunks] == [CHUNK_ROWS, 3]
    assert (chunks[0].rows[0], chunks[1].rows[-1]) == (3, CHUNK_ROWS + 5)
    assert chunks[1].columns == {"age": ("50", "50", "50")}
