"""Which column a draft takes for the label, and when it leaves the choice to a person."""

from pathlib import Path
from typing import Any

import pytest

from broker.errors import UsageError
from site_worker.tabular.declaration import load_declaration
from site_worker.tabular.drafting import draft
from site_worker.tabular.table import read_table
from tests.tabular.bench import written
from tests.tabular.folders import AGE, AWKWARD, DIED, ROWS, SEX, SIMPLE, WEIGHT, cleveland, drafted, table


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


def test_a_label_that_is_asked_for_is_taken_and_one_that_cannot_be_names_those_that_can(tmp_path: Path) -> None:
    path = written(tmp_path, table(*SIMPLE), "north.csv")
    text, sentences = draft(path.parent, label="sex")
    assert 'column = "sex"  # as asked for' in text
    assert any(sentence.startswith("The label is sex, as asked for") for sentence in sentences)
    assert "[columns.died]" in text
    with pytest.raises(UsageError, match=r"^Column 'weight' cannot be the label; those that can: sex, died\.$"):
        draft(path.parent, label="weight")
