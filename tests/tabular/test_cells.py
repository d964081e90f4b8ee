"""Single cells: what is a number, what is a category, and that reading at once and one by one are the same."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import UsageError
from site_worker.tabular.cells import LARGEST, UNKNOWN, Codes, Numbers, number_of

PATH = Path("north.csv")
MISSING = frozenset({None, "", "?", "-9"})
NUMBERS = Numbers(PATH, "age", MISSING)
GERMAN = Numbers(PATH, "age", MISSING, decimal=",")
SEX = Codes(PATH, "sex", {None: UNKNOWN, "": UNKNOWN, "F": 0, "M": 1, "2": 1}, None, "is not declared.")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1.0), ("-1.5", -1.5), ("+2", 2.0), (" 3 ", 3.0), (".5", 0.5), ("5.", 5.0), ("1e3", 1000.0), ("007", 7.0),
        ("1E-2", 0.01), ("", None), ("-", None), (".", None), ("1,5", None), ("1.234,5", None), ("1,234.5", None),
        ("1 234", None), ("1_000", None), ("1'000", None), ("nan", None), ("inf", None), ("-Infinity", None),
        ("0x10", None), ("1e", None), ("e5", None), ("--1", None), ("1-2", None), ("\u0661\u0662", None),
        ("5 mg", None), ("<5", None), ("true", None),
        ("2020-01-01", None),
    ],
)  # fmt: skip
def test_numbers_with_a_decimal_point(text: str, number: float | None) -> None:
    assert number_of(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [("1,5", 1.5), ("-,5", -0.5), ("12", 12.0), ("1,5e2", 150.0), ("1.5", None), ("1.234,5", None), ("1,2,3", None)],
)
def test_numbers_with_a_decimal_comma(text: str, number: float | None) -> None:
    assert number_of(text, ",") == number


CELLS = st.lists(
    st.one_of(
        st.none(),
        st.sampled_from(
            ["", "?", "-9", "-9.0", " 4 ", "1_0", "nan", "inf", "1e400", "1,5", "1.5", "\u0661", " ? ", "5 "]
        ),
        st.floats(allow_nan=False, allow_infinity=False, width=32).map(str),
        st.integers(-999, 999).map(str),
        st.text(max_size=4),
    ),
    max_size=6,
)


@given(CELLS, st.sampled_from([NUMBERS, GERMAN]))
def test_reading_at_once_is_reading_one_by_one_or_is_left_to_it(cells: list[str | None], numbers: Numbers) -> None:
    at_once = numbers._at_once(cells)
    if at_once is not None:
        np.testing.assert_array_equal(at_once, numbers._one_by_one(cells, range(len(cells))))


@given(CELLS, st.sampled_from([NUMBERS, GERMAN]))
def test_what_is_read_is_a_number_or_not_known_and_everything_else_is_refused(
    cells: list[str | None], numbers: Numbers
) -> None:
    bad = [
        cell is not None
        and cell.strip() not in MISSING
        and ((value := number_of(cell, numbers.decimal)) is None or (abs(value) > LARGEST))
        for cell in cells
    ]
    if any(bad):
        with pytest.raises(UsageError, match="column 'age' is"):
            numbers.of(cells, range(len(cells)))
    else:
        assert np.isfinite(numbers.of(cells, range(len(cells)))).sum() == sum(
            cell is not None and number_of(cell, numbers.decimal) not in (None, -9.0) for cell in cells
        )


@pytest.mark.parametrize("cell", ["1_0", "\u0661", "inf", "nan", "1e400", "x"])
def test_what_float_reads_and_we_do_not_is_left_to_reading_one_by_one(cell: str) -> None:
    assert NUMBERS._at_once(["1", cell]) is None
    assert GERMAN._at_once(["1", cell]) is None
    assert GERMAN._at_once(["1", "1.5"]) is None


def test_missing_texts_are_not_known_also_as_the_same_number() -> None:
    found = NUMBERS.of(["1", "", "?", None, "-9", "-9.0", " ? ", "-90"], range(8))
    np.testing.assert_array_equal(found, [1.0, *[math.nan] * 6, -90.0])
    np.testing.assert_array_equal(NUMBERS.of(np.array([1.0, -9.0, math.nan]), range(3)), [1.0, math.nan, math.nan])


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("12a", "is not a number; correct it, or list its text in missing in federation.toml"),
        ("inf", "is not a finite number; correct it, or list its text in missing"),
        ("NaN", "is not a finite number"),
        (
            "1,234.5",
            "is not a plain number; write it without thousands separators and with the decimal sign that",
        ),
        ("1,5", "is not a plain number"),
        ("1 234", "is not a plain number"),
        ("1_000", "is not a plain number"),
        ("1e400", "is beyond 1e+15, as no measurement is"),
        ("1e16", "is beyond 1e+15, as no measurement is"),
    ],
)
def test_a_refusal_names_file_row_column_and_what_to_do_but_not_the_value(cell: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        NUMBERS.of(["1", cell, "2"], [7, 9, 10])
    sentence = str(caught.value)
    assert sentence.startswith("north.csv: row 9, column 'age' is ")
    assert said in sentence
    assert cell not in sentence.replace("1e+15", "")


def test_numbers_of_a_parquet_file_have_bounds_too() -> None:
    with pytest.raises(UsageError, match="row 2, column 'age' is beyond"):
        NUMBERS.of(np.array([1.0, math.inf]), [1, 2])


def test_categories_have_their_declared_places() -> None:
    found = SEX.of(["F", "M", "", None, " M ", "2.0", "2"], range(7))
    assert found.tolist() == [0, 1, UNKNOWN, UNKNOWN, 1, 1, 1]
    assert found.dtype == np.int16


@pytest.mark.parametrize("cell", ["f", "D", "1", "Female"])
def test_a_category_that_is_not_declared_is_refused_without_its_name(cell: str) -> None:
    with pytest.raises(UsageError) as caught:
        SEX.of(["F", cell], [2, 3])
    assert str(caught.value) == "north.csv: row 3, column 'sex' is not declared."


def test_a_number_of_the_declaration_may_be_written_with_a_point_where_the_files_have_commas() -> None:
    coded = Numbers(PATH, "age", frozenset({"-9.5", "-1,5"}), decimal=",")
    np.testing.assert_array_equal(coded.of(["-9,5", "-9,50", "-1,5", "2"], range(4)), [math.nan] * 3 + [2.0])
    doses = Codes(PATH, "dose", {"2.5": 0, "1": 1}, None, "", decimal=",")
    assert doses.of(["2,5", "1,0"], range(2)).tolist() == [0, 1]


def test_or_has_the_place_of_all_others() -> None:
    others = Codes(PATH, "sex", SEX.places, 2, "")
    assert others.of(["F", "D", "7", ""], range(4)).tolist() == [0, 2, 2, UNKNOWN]
