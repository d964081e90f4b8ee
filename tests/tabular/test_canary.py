"""A mark planted among a hospital's data is in no error, in no log and in no message, whatever goes wrong."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.errors import UsageError
from site_worker.tabular.drafting import draft
from site_worker.tabular.table import read_table
from site_worker.tasks.tabular import tabular
from site_worker.training import Trainer, initial_weights
from tests.tabular.bench import SIMPLE, SURVIVAL, declared, loaded, read, written

MARK = "C4N4RY"
HEADER = "age,sex,died\n"


def told(error: BaseException | None) -> Iterator[str]:
    """An error and all it came from, as a traceback would print them."""
    while error is not None:
        yield f"{error!r} {error}"
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (f"{HEADER}{MARK},F,1\n", SIMPLE),
        (f"{HEADER}50,{MARK},1\n", SIMPLE),
        (f"{HEADER}50,F,{MARK}\n", SIMPLE),
        (f"{HEADER}50,F,1,{MARK}\n", SIMPLE),
        (f"{HEADER}50,F\n{MARK}\n", SIMPLE),
        (f'{HEADER}50,F,"{MARK}\n', SIMPLE),
        (f'{HEADER}50,F,"1"{MARK}\n', SIMPLE),
        (f"{HEADER}50,F,{MARK}\0\n", SIMPLE),
        (f"{HEADER}50,F,{MARK}\rx\n", SIMPLE),
        (f"{MARK},sex,died\n50,F,1\n", SIMPLE),
        (f"{MARK},{MARK},died\n50,F,1\n", SIMPLE),
        (f"{MARK},F,1\n50,F,1\n", SIMPLE),
        (f"{HEADER}50,F,1\n", SIMPLE + "[files]\nheader = false\nnames = ['age', 'sex', 'died']\n"),
        (f"{MARK},F,1\n", SIMPLE + "[files]\nheader = false\nnames = ['age', 'sex', 'died']\n"),
        (f"{MARK},F,1,1\n", SIMPLE + "[files]\nheader = false\nnames = ['age', 'sex', 'died']\n"),
        (f"{MARK};50;F;1\n", SIMPLE + "[files]\ndelimiter = 'auto'\n"),
        (f"age,days,died\n50,{MARK},1\n", SURVIVAL),
        (f"age,days,died\n50,3,{MARK}\n", SURVIVAL),
    ],
)
def test_no_refusal_quotes_the_data(tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str, text: str) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(UsageError) as caught:
        read(tmp_path, content, text)
    assert MARK not in " ".join(told(caught.value))
    assert MARK not in caplog.text


def test_bytes_that_are_no_text_are_not_quoted_either(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, f"{HEADER}50,F,{MARK}".encode() + b"\xff\n")
    assert MARK not in " ".join(told(caught.value))


def test_parquet_is_no_other(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "north.parquet"
    for columns in ({"age": [MARK]}, {"sex": [MARK]}, {"died": [MARK]}, {"age": [[MARK]]}, {"age": [MARK.encode()]}):
        parquet.write_table(pyarrow.table({"age": [50], "sex": ["F"], "died": ["1"]} | columns), path)
        with pytest.raises(UsageError) as caught:
            read_table(path, loaded(tmp_path))
        assert MARK not in " ".join(told(caught.value))


def test_what_a_site_says_and_logs_holds_no_cell_no_column_and_no_file_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = SIMPLE.replace("age", MARK).replace('"F"', f'"{MARK}"').replace("died", f"died {MARK}")
    rows = "".join(f"{age},{MARK},{age % 2},{MARK}\n" for age in range(50, 70))
    text += "[metrics]\nhistograms = false\n"
    text += f'[columns."lacking {MARK}"]\nrole = "number"\noptional = true\n'
    path = written(tmp_path, f"{MARK},sex,died {MARK},note {MARK}\n{rows}60,M,,x\n", f"{MARK}.csv")
    with caplog.at_level(logging.INFO):
        made = tabular(str(declared(tmp_path, text)), str(path))
        measured = Trainer(made, None, seed=0).evaluate(initial_weights(made))
    assert made.statistics is not None
    assert MARK not in f"{made.name} {measured} {made.statistics().to_lists()}"
    assert MARK not in caplog.text
    assert "1 of 21 rows have no label" in caplog.text
    assert "1 of 3 columns are lacking" in caplog.text


def test_a_draft_quotes_no_number_and_no_free_text(tmp_path: Path) -> None:
    rows = "".join(f"{row},{3.5 + row},{MARK}{row},{row % 2}\n" for row in range(40))
    written(tmp_path, f"id,weight,name,died\n{rows}")
    text, sentences = draft(tmp_path)
    assert MARK not in text
    assert "42.5" not in text
    assert MARK not in " ".join(sentences)
    written(tmp_path, f"id,weight,name,died\n{MARK}\n")
    with pytest.raises(UsageError) as caught:
        draft(tmp_path)
    assert MARK not in " ".join(told(caught.value))
