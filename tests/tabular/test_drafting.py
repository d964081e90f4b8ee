"""Drafts: for every awkward folder one that loads and reads each file, or a sentence that names the files at odds."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import UsageError
from site_worker.tabular.declaration import load_declaration
from site_worker.tabular.drafting import draft
from site_worker.tabular.schema import Column
from site_worker.tabular.table import read_table
from tests.tabular.bench import written
from tests.tabular.folders import AGE, AWKWARD, DIED, GERMAN, ID, ROWS, SEX, SIMPLE, drafted, table


@pytest.mark.parametrize("files", AWKWARD.values(), ids=AWKWARD)
def test_the_draft_loads_and_reads_every_file(tmp_path: Path, files: dict[str, str | bytes]) -> None:
    _, text, sentences = drafted(tmp_path, files)
    assert draft(tmp_path)[0] == text
    assert all(sentence.endswith(".") for sentence in sentences)


TEXTS = ["", "?", "-", "unknown", "none", "-9", "999", "0", "1", "2", "007", "1e3", "yes", "no", "Yes", "F", "M", " M "]
TEXTS += ["2020-01-01", "true", "missing", "-1", "9999", "5 mg", "\u0661", "n/a", "1 000"]
POINTS, COMMAS = ["-9.0", "1.0", "2.5", "0.0", "-.5"], ["-9,0", "1,0", "2,5", "0,0", "1,234"]
NAMES = ["label", "Age", "patient_id", "time", "event", "x", "y", "", "2", "days [d]"]


@st.composite
def folders(draw: st.DrawFn) -> dict[str, str | bytes]:
    """One to three files of few rows, with a label, an age, and columns that hold what hospitals write."""
    files: dict[str, str | bytes] = {}
    header, texts = draw(st.booleans()), TEXTS + draw(st.sampled_from([POINTS, COMMAS]))
    more = draw(st.lists(st.sampled_from(NAMES), max_size=3, unique=True))
    pools = {name: draw(st.lists(st.sampled_from(texts), min_size=1, max_size=5)) for name in more}
    pools |= {"age": ["40", "55", "61", *draw(st.lists(st.sampled_from(texts), max_size=1))]}
    pools |= {"died": ["0", "1", *draw(st.lists(st.sampled_from(texts), max_size=1))]}
    for file in draw(st.sampled_from([["a.csv"], ["a.csv", "b.tsv"], ["a.csv", "b.csv", "c.csv"]])):
        names = draw(st.permutations(list(pools))) if header else list(pools)
        rows = [[draw(st.sampled_from(pools[name])) for name in names] for _ in range(draw(st.integers(2, 14)))]
        text = io.StringIO(newline="")
        out = csv.writer(text, delimiter="\t" if file.endswith("tsv") else draw(st.sampled_from(",;|")))
        out.writerows([names, *rows] if header else rows)
        files[file] = text.getvalue()
    return files


@given(folders())
@settings(max_examples=150)
def test_whatever_is_in_a_folder_the_draft_reads_it_or_says_why_there_is_none(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, str | bytes]
) -> None:
    folder = tmp_path_factory.mktemp("drafts")
    for name, content in files.items():
        written(folder, content, name)
    try:
        text, _ = draft(folder)
    except UsageError:
        return
    (folder / "federation.toml").write_text(text)
    if 'column = ""' in text:
        with pytest.raises(UsageError, match="choose the label"):
            load_declaration(folder / "federation.toml")
    else:
        drafted(folder, files)


def test_every_choice_has_its_reason_beside_it_and_is_told(tmp_path: Path) -> None:
    found, text, sentences = drafted(tmp_path, AWKWARD["plain"])
    assert found.columns == {
        "age": Column("number"), "weight": Column("number"), "sex": Column("category", categories=("F", "M")),
    }  # fmt: skip
    assert found.label.positive == ("1",)
    assert '[columns.age]\nrole = "number"  # numbers only\n' in text
    assert 'column = "died"  # of the columns with few values the one that is named as an outcome\n' in text
    assert sentences == [
        "Sites: north (60 rows), south (60 rows).",
        "The label is died, of the columns with few values the one that is named as an outcome; positive is '1'.",
        "Numbers: age, weight.",
        "Categories: sex.",
        "sex has the categories F (40 rows at 2 of 2 sites), M (80 rows at 2 of 2 sites).",
    ]


def test_what_is_missing_is_found_in_its_column(tmp_path: Path) -> None:
    found, _, sentences = drafted(tmp_path, AWKWARD["signs, words and codes"])
    assert found.columns["age"] == Column("number", indicator=True, missing=("n/a", "-9"))
    assert found.columns["lactate"] == Column("number", indicator=True, missing=(".", "unknown", "-999", "9999"))
    assert found.columns["sex"] == Column("category", categories=("F", "M"), missing=("-", "-9"))
    assert "age: '?', 'n/a', '-9' is taken to mean missing." in sentences
    assert "died: 'NA' is taken to mean missing." in sentences
    table = read_table(tmp_path / "south.csv", found)
    np.testing.assert_array_equal(table.numbers["age"][:4], [50.0, np.nan, 61.0, np.nan])


def test_a_number_that_could_be_a_code_is_one_only_far_from_all_others(tmp_path: Path) -> None:
    found, _, _ = drafted(tmp_path, AWKWARD["a code that is a number elsewhere"])
    assert found.columns["excess"] == Column("number")


@pytest.mark.parametrize(
    ("case", "reasons"),
    [
        (
            "identifiers",
            {
                "patient_id": "an identifier by its name", "row": "an identifier: all values differ",
                "zip": "an identifier: all values differ",
            },
        ),
        ("dates and notes", {"admitted": "dates: store an age", "note": "texts of more than 30 values"}),
        ("constant and empty columns", {"ward": "one value everywhere", "nothing": "no value is known"}),
        ("one number with a slip", {"age": "numbers, but for 1 of 60 cells, the first in row 52 of north.csv"}),
    ],
)  # fmt: skip
def test_what_is_ignored_is_told_with_its_reason(tmp_path: Path, case: str, reasons: dict[str, str]) -> None:
    found, text, sentences = drafted(tmp_path, AWKWARD[case])
    assert {name for name, column in found.columns.items() if column.role == "ignore"} == set(reasons)
    for name, reason in reasons.items():
        assert f'[columns.{name}]\nrole = "ignore"  # {reason}' in text
        assert any(sentence.startswith(f"Ignored: {name}, {reason}") for sentence in sentences)


def test_whole_numbers_that_count_the_rows_are_an_identifier_whatever_they_are_called(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {f"{site}.csv": table(("n", range(40)), AGE, DIED, rows=40) for site in "ab"}
    assert drafted(tmp_path, files)[0].columns["n"].role == "ignore"


def test_numbers_that_all_differ_are_no_identifiers(tmp_path: Path) -> None:
    found, _, _ = drafted(tmp_path, {"north.csv": table(("crp", [row * 0.25 for row in range(ROWS)]), DIED)})
    assert found.columns["crp"].role == "number"


def test_files_that_differ_in_what_can_be_declared_are_named(tmp_path: Path) -> None:
    found, _, sentences = drafted(tmp_path, AWKWARD["delimiters"])
    assert found.files.delimiter == "auto"
    assert any("different delimiters" in one and "b.csv ';'" in one for one in sentences)


def test_a_column_that_a_file_lacks_is_optional_and_the_site_named(tmp_path: Path) -> None:
    found, _, sentences = drafted(tmp_path, AWKWARD["a column is lacking"])
    assert {name for name, column in found.columns.items() if column.optional} == {"weight", "sex"}
    assert "weight is lacking at south, so it is optional." in sentences


def test_one_name_written_in_two_ways_is_told(tmp_path: Path) -> None:
    _, _, sentences = drafted(tmp_path, AWKWARD["names in capitals"])
    assert "The files write one name differently: age, Age; rename the columns if they are the same." in sentences


def test_decimal_commas_are_found(tmp_path: Path) -> None:
    found, _, _ = drafted(tmp_path, AWKWARD["decimal commas"])
    assert (found.files.delimiter, found.files.decimal) == (";", ",")
    assert read_table(tmp_path / "north.csv", found).numbers["weight"][:3].tolist() == [61.5, 72.25, 80.0]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "has no .csv, .tsv, .parquet file"),
        ({"north.csv": ""}, "north.csv is empty"),
        ({"north.csv": "age,died\n"}, "north.csv has columns but no rows"),
        ({"north.csv": table(*SIMPLE) + "1,2\n"}, f"north.csv: row {ROWS + 2}, has 2 cells instead of 4"),
        ({"north.csv": "é".encode("latin-1") + b",x\n1,2\n"}, "north.csv: row 1, is not UTF-8"),
        (
            {"north.csv": table(*SIMPLE), "south.csv": table(*SIMPLE, header=False)},
            "south.csv seems to have no header, .*north.csv has one",
        ),
        (
            {"north.csv": table(*SIMPLE, header=False), "south.csv": table(AGE, DIED, header=False)},
            "north.csv has 4 columns, .*south.csv has 2",
        ),
        (
            {"north.csv": table(*SIMPLE), "south.csv": table(AGE, GERMAN, SEX, DIED, delimiter=";")},
            "south.csv has decimal commas and .*north.csv decimal points",
        ),
        ({"north.csv": table(ID, DIED)}, "has no column that a model could learn from"),
        ({"a b.csv": table(*SIMPLE), "a-b.csv": table(*SIMPLE)}, "both make site 'a-b'"),
    ],
)
def test_what_no_declaration_could_cover_is_refused_with_the_files(
    tmp_path: Path, files: dict[str, str | bytes], said: str
) -> None:
    for name, content in files.items():
        written(tmp_path, content, name)
    with pytest.raises(UsageError, match=said):
        draft(tmp_path)


def test_parquet_files_are_drafted_beside_text_files(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {
        "age": pyarrow.array([50.5, None, 70.0] * 20), "sex": pyarrow.array(["F", "M", None] * 20).dictionary_encode(),
        "died": pyarrow.array([True, False, False] * 20), "stay": pyarrow.array([[1], [2], [3]] * 20),
        "code": pyarrow.array([1, 2, -9] * 20),
    }  # fmt: skip
    parquet.write_table(pyarrow.table(columns), tmp_path / "south.parquet")
    csv = table(("age", [50.5, "", 61]), SEX, ("died", [0, 1]), ("code", [1, 2]))
    found, text, _ = drafted(tmp_path, {"north.csv": csv})
    assert found.label.positive == ("1", "true")
    assert found.columns["code"].missing == ("-9",)
    assert 'role = "ignore"  # holds values of type list<' in text


def test_the_federation_is_named_after_the_folder(tmp_path: Path) -> None:
    for folder, name in (("Ward 3", "Ward-3"), ("models", "federation-models"), ("---", "federation")):
        (tmp_path / folder).mkdir()
        assert drafted(tmp_path / folder, AWKWARD["plain"])[0].name == name
