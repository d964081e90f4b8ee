"""Drafts: for every awkward folder one that loads and reads each file, or a sentence that names the files at odds."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import UsageError
from site_worker.tabular.declaration import Declaration, load_declaration
from site_worker.tabular.drafting import draft
from site_worker.tabular.schema import Column
from site_worker.tabular.table import read_table
from tests.tabular.bench import written

ROWS = 60


def table(*columns: tuple[str, Any], rows: int = ROWS, delimiter: str = ",", header: bool = True) -> str:
    """A text file; each column is a name and its cells, repeated as often as there are rows."""
    lines = [delimiter.join(name for name, _ in columns)] if header else []
    lines += [delimiter.join(str(cells[row % len(cells)]) for _, cells in columns) for row in range(rows)]
    return "\n".join(lines) + "\n"


AGE = ("age", range(40, 97))
WEIGHT = ("weight", [61.5, 72.25, 80.0, 55.75, 90.5, 66.0, 71.25])
SEX = ("sex", ["F", "M", "M"])
DIED = ("died", [0, 0, 0, 1, 0])
ID = ("patient_id", [f"P{row}" for row in range(ROWS)])
SIMPLE = (AGE, WEIGHT, SEX, DIED)
GERMAN = ("weight", ["61,5", "72,25", "80", "55,75"])


def drafted(folder: Path, files: dict[str, str | bytes]) -> tuple[Declaration, str, list[str]]:
    """The draft of `files`, loaded; every file reads with it and keeps every row that has a label."""
    for name, content in files.items():
        written(folder, content, name)
    text, sentences = draft(folder)
    path = folder / "federation.toml"
    path.write_text(text)
    declaration = load_declaration(path)
    for file in declaration.files_of(folder).values():
        assert len(read_table(file, declaration).labels)
    return declaration, text, sentences


AWKWARD: dict[str, dict[str, str | bytes]] = {
    "plain": {"north.csv": table(*SIMPLE), "south.csv": table(*SIMPLE)},
    "one file": {"north.csv": table(*SIMPLE)},
    "a few rows": {"north.csv": table(*SIMPLE, rows=4)},
    "delimiters": {
        "a.csv": table(*SIMPLE), "b.csv": table(*SIMPLE, delimiter=";"), "c.csv": table(*SIMPLE, delimiter="|"),
        "d.csv": table(*SIMPLE, delimiter="\t"), "e.tsv": table(*SIMPLE, delimiter="\t"),
    },
    "decimal commas": {"north.csv": table(AGE, GERMAN, SEX, DIED, delimiter=";")},
    "as many commas as delimiters": {"north.csv": table(GERMAN, ("dose", ["1,5", "2,0", "2"]), DIED, delimiter=";")},
    "a column is lacking": {"north.csv": table(*SIMPLE), "south.csv": table(AGE, DIED)},
    "another order": {"north.csv": table(*SIMPLE), "south.csv": table(*reversed(SIMPLE))},
    "a category at one site": {
        "north.csv": table(*SIMPLE), "south.csv": table(AGE, WEIGHT, ("sex", ["F", "M", "D"]), DIED),
    },
    "one class at one site": {"north.csv": table(*SIMPLE), "south.csv": table(AGE, WEIGHT, SEX, ("died", [0]))},
    "missing everywhere at one site": {
        "north.csv": table(*SIMPLE), "south.csv": table(("age", [""]), WEIGHT, SEX, DIED),
    },
    "signs, words and codes": {
        "north.csv": table(
            ("age", [50, "?", 61, -9]), ("lactate", [1.5, "unknown", 2.5, "."]), ("sex", ["F", "M", "-"]),
            ("died", [0, 1, "NA", 0]),
        ),
        "south.csv": table(
            ("age", [50, "n/a", 61, "-9.0"]), ("lactate", [1.5, -999, 9999, 4]), ("sex", ["F", "-9", "M"]), DIED
        ),
    },
    "a code that is a number elsewhere": {"north.csv": table(AGE, ("excess", [-9, -3, 2, 5, -20]), DIED)},
    "identifiers": {
        "north.csv": table(ID, ("row", range(1, ROWS + 1)), ("zip", [f"D-{row}" for row in range(ROWS)]), *SIMPLE),
        "south.csv": table(ID, ("row", range(30)), ("zip", [f"F-{row}" for row in range(30)]), *SIMPLE, rows=30),
    },
    "an exported index": {"north.csv": table(("", range(ROWS)), *SIMPLE)},
    "dates and notes": {
        "north.csv": table(
            ("admitted", [f"2020-01-{day:02}" for day in range(1, 29)]),
            ("note", [f"text {row % 45}" for row in range(90)]), *SIMPLE,
        )
    },
    "constant and empty columns": {"north.csv": table(("ward", ["A"]), ("nothing", [""]), *SIMPLE)},
    "one number with a slip": {"north.csv": table(("age", [*range(40, 90), "5O"]), *SIMPLE[1:])},
    "texts for labels": {
        "north.csv": table(AGE, ("outcome", ["alive", "dead", "alive"])),
        "south.csv": table(AGE, ("outcome", [0, 1, 0])),
    },
    "booleans": {"north.csv": table(AGE, ("readmitted", ["True", "False", "False"]))},
    "names with quotes": {
        "north.csv": table(('"he said ""x"" [y] = \'z\'"', range(50)), ("größe\x7f", range(50)), *SIMPLE),
    },
    "cells with quotes": {"north.csv": table(AGE, ("ward", ['"A, ""x"""', '"B\\n"', '"C\nD"']), DIED)},
    "byte order mark and carriage returns": {
        "north.csv": b"\xef\xbb\xbf" + table(*SIMPLE).replace("\n", "\r\n").encode(), "south.csv": table(*SIMPLE),
    },
    "no header": {"north.csv": table(*SIMPLE, header=False), "south.csv": table(*SIMPLE, header=False)},
    "no header, other delimiters": {
        "north.csv": table(*SIMPLE, header=False), "south.csv": table(*SIMPLE, header=False, delimiter=";"),
    },
    "survival": {"north.csv": table(AGE, ("followup_days", range(900)), ("status", [1, 1, 2]), rows=900)},
    "times and events never known together": {
        "north.csv": table(AGE, ("time", [1, ""]), ("died", ["", 0])), "south.csv": table(AGE, ("time", [1, 2]), DIED),
    },
    "names in capitals": {
        "north.csv": table(AGE, SEX, ("DIED", [0, 1])), "south.csv": table(("Age", range(50)), SEX, ("DIED", [0, 1])),
    },
    "whole numbers as codes": {"north.csv": table(AGE, ("pain", [1, 2, 3, 4]), DIED)},
    "numbers as such": {"north.csv": table(("a", ["1e3", "+2", ".5", "5."]), ("b", ["007", "1.0", "1"]), DIED)},
}  # fmt: skip


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
    ("cells", "positive", "negative"),
    [
        ([0, 1, 1], ("1",), ("0",)),
        ([2, 1, 1], ("2",), ("1",)),
        ([-1, 1, 1], ("1",), ("-1",)),
        (["no", "yes", "yes"], ("yes",), ("no",)),
        (["N", "Y"], ("Y",), ("N",)),
        (["alive", "dead", "dead"], ("dead",), ("alive",)),
        (["yes", 1, "no", 0], ("1", "yes"), ("0", "no")),
        (["stroke", "stroke", "bleeding"], ("bleeding",), ("stroke",)),
    ],
)
def test_the_positive_value_is_the_larger_number_the_yes_or_the_rarer_text(
    tmp_path: Path, cells: list[Any], positive: tuple[str, ...], negative: tuple[str, ...]
) -> None:
    found, _, _ = drafted(tmp_path, {"north.csv": table(AGE, ("outcome", cells))})
    assert (found.label.positive, found.label.negative) == (positive, negative)


def cleveland(rows: int, seed: int) -> str:
    """Drawn rows in the layout of the well-known heart data: no header, ? and -9 for missing, a grade in the end."""
    random = np.random.default_rng(seed)
    lines = []
    for _ in range(rows):
        known = random.random(3) > 0.1
        cells = [
            random.integers(30, 77), random.integers(0, 2), random.integers(1, 5), random.integers(95, 200),
            random.integers(130, 400) if known[0] else -9, random.integers(0, 2), random.integers(0, 3),
            random.integers(75, 200) if known[1] else "?", random.integers(0, 2), round(random.random() * 6, 1),
            random.integers(1, 4), random.integers(0, 4), random.choice([3, 6, 7]) if known[2] else "?",
            random.choice([0, 0, 0, 1, 2, 3, 4]),
        ]  # fmt: skip
        lines.append(",".join(map(str, cells)))
    return "\n".join(lines) + "\n"


def test_the_layout_of_the_heart_data(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {f"{name}.data.csv": cleveland(120, seed) for seed, name in enumerate("xy")}
    found, text, sentences = drafted(tmp_path, files)
    assert found.files.names[0] == "column01"
    assert (found.label.column, found.label.above) == ("column14", 0.0)
    assert found.columns["column05"].missing == ("-9",)
    assert found.columns["column13"].categories == ("3", "6", "7")
    assert [name for name, column in found.columns.items() if column.role == "number"] == [
        f"column{place:02}" for place in (1, 2, 4, 5, 6, 8, 9, 10)
    ]
    assert "taken for codes; if they are amounts" in text
    assert any("no header" in one for one in sentences)


def test_survival_is_recognised(tmp_path: Path) -> None:
    found, _, sentences = drafted(tmp_path, AWKWARD["survival"])
    assert (found.task, found.label.time, found.label.event) == ("cox", "followup_days", "status")
    assert (found.label.positive, found.label.negative) == (("2",), ("1",))
    assert any("The label is followup_days until status" in one for one in sentences)


def test_a_label_that_cannot_be_told_is_left_to_a_person(tmp_path: Path) -> None:
    written(tmp_path, table(AGE, SEX, ("smoker", [0, 1]), ("ward", ["A", "B", "C"])))
    text, sentences = draft(tmp_path)
    path = tmp_path / "federation.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match="choose the label"):
        load_declaration(path)
    assert "Choose the label: it could be sex, smoker;" in " ".join(sentences)
    chosen = "\n".join(line.removeprefix("# ") for line in text.split('column = ""')[1].splitlines()[4:7])
    assert chosen.splitlines() == ['column = "smoker"', 'positive = ["1"]', 'negative = ["0"]']
    edited = text.replace('column = ""', chosen + "  #", 1).replace('[columns.smoker]\nrole = "number"', "#")
    path.write_text(edited)
    assert len(read_table(tmp_path / "north.csv", load_declaration(path)).labels) == ROWS


def test_two_outcomes_leave_the_choice_and_a_target_among_them_decides(tmp_path: Path) -> None:
    written(tmp_path, table(AGE, DIED, ("readmitted", [0, 1])))
    assert "Choose the label: it could be died, readmitted" in " ".join(draft(tmp_path)[1])
    written(tmp_path, table(AGE, DIED, ("label", [0, 1])))
    sentences = draft(tmp_path)[1]
    assert any(one.startswith("The label is label") for one in sentences)
    assert "Named as outcomes too: died; ignore those that are known only after the label." in sentences


def test_what_one_site_never_knows_is_no_label(tmp_path: Path) -> None:
    written(tmp_path, table(AGE, ("died", [0, 1, -9])), "north.csv")
    written(tmp_path, table(AGE, ("died", [-9])), "south.csv")
    assert any(one.startswith("No label was found") for one in draft(tmp_path)[1])


def test_no_column_that_could_be_a_label_is_told(tmp_path: Path) -> None:
    written(tmp_path, table(AGE, WEIGHT))
    text, sentences = draft(tmp_path)
    assert 'column = ""' in text
    assert any(one.startswith("No label was found") for one in sentences)


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


def test_a_label_that_is_asked_for_is_taken_and_one_that_cannot_be_names_those_that_can(tmp_path: Path) -> None:
    path = written(tmp_path, table(*SIMPLE), "north.csv")
    text, sentences = draft(path.parent, label="sex")
    assert 'column = "sex"  # as asked for' in text
    assert any(sentence.startswith("The label is sex, as asked for") for sentence in sentences)
    assert "[columns.died]" in text
    with pytest.raises(UsageError, match=r"^Column 'weight' cannot be the label; those that can: sex, died\.$"):
        draft(path.parent, label="weight")
