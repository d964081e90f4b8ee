"""A file in memory: labels, missing values, absent columns, and every file that is refused."""

import math
from pathlib import Path

import numpy as np
import psutil
import pytest

from broker.errors import UsageError
from site_worker.tabular.cells import UNKNOWN
from site_worker.tabular.chunk import CHUNK_ROWS
from tests.tabular.bench import AGE, HEAD, LABEL, SEX, SIMPLE, SURVIVAL, read

NAN = math.nan


def test_columns_and_labels_by_hand(tmp_path: Path) -> None:
    table = read(tmp_path, "age,sex,died\n50,F,1\n?,M,0\n61.5,,0\n")
    np.testing.assert_array_equal(table.numbers["age"], [50.0, NAN, 61.5])
    assert table.codes["sex"].tolist() == [0, 1, UNKNOWN]
    assert table.labels.tolist() == [[1.0], [0.0], [0.0]]
    assert table.notes == ()


@pytest.mark.parametrize(
    ("label", "cells", "expected"),
    [
        ('positive = ["1", "yes"]', ["1", "yes", "1.0", " yes ", "no", "0"], [1, 1, 1, 1, 0, 0]),
        ('positive = [true]\nnegative = ["false"]', ["true", "false"], [1, 0]),
        ("above = 50.0", ["50", "50.1", "-3"], [0, 1, 0]),
        ("above = 0", ["0", "3", "1e-9"], [0, 1, 1]),
    ],
)
def test_positive_rows(tmp_path: Path, label: str, cells: list[str], expected: list[int]) -> None:
    text = HEAD + f'[label]\ncolumn = "died"\n{label}\n' + AGE
    table = read(tmp_path, "age,died\n" + "".join(f"5,{cell}\n" for cell in cells), text)
    assert table.labels[:, 0].tolist() == expected


def test_a_third_label_is_refused_where_negative_is_declared_and_negative_where_it_is_not(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"row 3, column 'died' is neither positive nor negative nor missing"):
        read(tmp_path, "age,sex,died\n5,F,1\n5,F,2\n")
    table = read(tmp_path, "age,sex,died\n5,F,1\n5,F,2\n", SIMPLE.replace('negative = ["0"]', ""))
    assert table.labels[:, 0].tolist() == [1.0, 0.0]


def test_rows_without_a_label_are_left_out_and_told_whatever_else_they_hold(tmp_path: Path) -> None:
    table = read(tmp_path, "age,sex,died\n50,F,1\nsum,-,\n60,M,0\n70,M,NA\n")
    assert table.numbers["age"].tolist() == [50.0, 60.0]
    assert table.codes["sex"].tolist() == [0, 1]
    assert table.labels[:, 0].tolist() == [1.0, 0.0]
    assert table.notes == ("2 of 4 rows have no label and were left out",)


def test_a_label_has_missing_texts_of_its_own(tmp_path: Path) -> None:
    text = HEAD + '[label]\ncolumn = "grade"\nabove = 0.0\nmissing = ["-9"]\n' + AGE
    assert read(tmp_path, "age,grade\n5,-9\n5,3\n5,0\n", text).labels[:, 0].tolist() == [1.0, 0.0]


def test_a_file_without_any_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none of the 2 rows has a label; fill column 'died'"):
        read(tmp_path, "age,sex,died\n50,F,\n60,M,?\n")


def test_survival_has_time_and_event(tmp_path: Path) -> None:
    table = read(tmp_path, "age,days,died\n50,12.5,1\n60,0,0\n70,,1\n80,9,\n", SURVIVAL)
    assert table.labels.tolist() == [[12.5, 1.0], [0.0, 0.0]]
    assert table.notes == ("2 of 4 rows have no label and were left out",)
    with pytest.raises(UsageError, match="row 3, column 'days' is a time before 0"):
        read(tmp_path, "age,days,died\n50,1,1\n60,-1,0\n", SURVIVAL)
    with pytest.raises(UsageError, match="row 2, column 'days' is not a number"):
        read(tmp_path, "age,days,died\n50,two weeks,1\n", SURVIVAL)
    with pytest.raises(UsageError, match="none of the 1 rows has a label; fill column 'days' and 'died'"):
        read(tmp_path, "age,days,died\n50,,1\n", SURVIVAL)


def test_a_column_may_be_missing_in_every_row_or_absent_where_it_is_optional(tmp_path: Path) -> None:
    empty = read(tmp_path, "age,sex,died\n,?,1\n,,0\n")
    np.testing.assert_array_equal(empty.numbers["age"], [NAN, NAN])
    assert empty.codes["sex"].tolist() == [UNKNOWN, UNKNOWN]
    optional = SIMPLE.replace("role", "optional = true\nrole")
    absent = read(tmp_path, "died\n1\n0\n", optional)
    np.testing.assert_array_equal(absent.numbers["age"], [NAN, NAN])
    assert absent.codes["sex"].tolist() == [UNKNOWN, UNKNOWN]
    assert absent.notes == ("2 of 2 columns are lacking, so nothing is known there",)
    with pytest.raises(UsageError, match="has no column 'age'"):
        read(tmp_path, "died\n1\n0\n")


def test_missing_can_be_a_category(tmp_path: Path) -> None:
    text = SIMPLE.replace('["F", "M"]', '["F", "missing", "M"]\noptional = true')
    assert read(tmp_path, "age,sex,died\n5,F,1\n5,,0\n5,missing,0\n", text).codes["sex"].tolist() == [0, 1, 1]
    assert read(tmp_path, "age,died\n5,1\n", text).codes["sex"].tolist() == [1]


def test_a_category_only_one_site_has_is_no_trouble_and_one_that_nobody_declared_is(tmp_path: Path) -> None:
    north = read(tmp_path, "age,sex,died\n5,F,1\n5,F,0\n")
    assert north.codes["sex"].tolist() == [0, 0]
    with pytest.raises(UsageError, match=r"row 3, column 'sex' is none of its declared .* or set other = true there"):
        read(tmp_path, "age,sex,died\n5,F,1\n5,D,0\n")
    other = SIMPLE.replace('["F", "M"]', '["F", "M"]\nother = true')
    assert read(tmp_path, "age,sex,died\n5,F,1\n5,D,0\n", other).codes["sex"].tolist() == [0, 2]


def test_columns_that_are_not_declared_are_not_read_and_told_by_their_place(tmp_path: Path) -> None:
    table = read(tmp_path, 'name,age,sex,died,note\nA,5,F,1,"x"\n')
    assert table.notes == ("columns that are not declared were not read: 1, 5 of 5",)
    ignored = SIMPLE + '[columns.name]\nrole = "ignore"\n[columns.note]\nrole = "ignore"\n'
    assert read(tmp_path, "name,age,sex,died,note\nA,5,F,1,x\n", ignored).notes == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("age,sex,died\n", "has columns but no rows"),
        ("age,sex,died\n50,F\n", "row 2, has 2 cells instead of 3"),
        ("age,sex,died\n50,F,1\n\nold,F,1\n", "row 4, column 'age' is not a number"),
        ('age,sex,died\n50,"F\n",1\nold,F,1\n', "row 4, column 'age' is not a number"),
        ("age,sex,died\n1.234,F,1\n1,234,F,1\n", "row 3, has 4 cells instead of 3"),
        ('age,sex,died\n"1,234",F,1\n', "row 2, column 'age' is not a plain number"),
        ("age,sex,died\n-inf,F,1\n", "row 2, column 'age' is not a finite number"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_row(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, content)
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "north.csv"))


def test_decimal_commas_and_semicolons(tmp_path: Path) -> None:
    text = SIMPLE + '[files]\ndelimiter = ";"\ndecimal = ","\n'
    assert read(tmp_path, "age;sex;died\n50,5;F;1\n", text).numbers["age"].tolist() == [50.5]
    with pytest.raises(UsageError, match="row 2, column 'age' is not a plain number"):
        read(tmp_path, "age;sex;died\n50.5;F;1\n", text)


def test_rows_are_the_same_over_the_borders_of_chunks(tmp_path: Path) -> None:
    count = 2 * CHUNK_ROWS + 5
    lines = "".join(f"{row},{'FM'[row % 2]},{row % 3 % 2}\n" for row in range(count))
    table = read(tmp_path, "age,sex,died\n" + lines)
    assert table.numbers["age"].tolist() == list(range(count))
    assert table.codes["sex"].tolist() == [row % 2 for row in range(count)]
    assert table.labels[:, 0].tolist() == [row % 3 % 2 for row in range(count)]
    with pytest.raises(UsageError, match=f"row {count + 2}, column 'sex'"):
        read(tmp_path, "age,sex,died\n" + lines + "1,X,1\n")


def test_a_file_without_a_header(tmp_path: Path) -> None:
    text = HEAD + LABEL + AGE + SEX + '[files]\nheader = false\nnames = ["died", "sex", "ward", "age"]\n'
    table = read(tmp_path, "1,F,3,50\n0,M,x,60\n", text)
    assert table.numbers["age"].tolist() == [50.0, 60.0]
    assert table.labels[:, 0].tolist() == [1.0, 0.0]
    with pytest.raises(UsageError, match="row 1 names the columns; take it out, or set header = true"):
        read(tmp_path, "died,sex,ward,age\n1,F,3,50\n", text)


@pytest.mark.parametrize("last", ["1,60", "1,sixty,F", "1,60,X", '1,"60,F'])
def test_a_file_that_is_refused_is_closed_at_once(tmp_path: Path, last: str) -> None:
    with pytest.raises(UsageError) as refused:
        read(tmp_path, "died,age,sex\n" + "1,60,F\n" * (3 * CHUNK_ROWS) + last + "\n" + "1,60,F\n" * CHUNK_ROWS)
    opened = {Path(file.path) for file in psutil.Process().open_files()}
    assert tmp_path / "north.csv" not in opened, refused.value
