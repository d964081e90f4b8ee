"""Parquet files: the same table as from CSV, and a sentence for what a model cannot take."""

import builtins
import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.errors import UsageError
from site_worker.tabular.cells import UNKNOWN
from site_worker.tabular.chunk import CHUNK_ROWS
from site_worker.tabular.declaration import load_declaration
from site_worker.tabular.table import Table, read_table
from tests.tabular.bench import SIMPLE, declared, loaded, read, written

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

NAN = float("nan")
SEX = ["F", "M", None]


def saved(folder: Path, **columns: Any) -> Path:
    path = folder / "north.parquet"
    parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    return path


def table(folder: Path, text: str = SIMPLE, **columns: Any) -> Table:
    return read_table(saved(folder, **columns), loaded(folder, text))


AGES = {
    "int8": pyarrow.array([50, 60, None], pyarrow.int8()),
    "uint64": pyarrow.array([50, 60, None], pyarrow.uint64()),
    "float32": pyarrow.array([50, 60, None], pyarrow.float32()),
    "float16": pyarrow.array(np.array([50, 60, NAN], dtype=np.float16)),
    "nan": pyarrow.array([50.0, 60.0, NAN]),
    "code": pyarrow.array([50, 60, -9]),
    "decimal": pyarrow.array([50, 60, None], pyarrow.decimal128(5, 1)),
    "texts": pyarrow.array(["50", "60.0", "?"]),
    "dictionary": pyarrow.array(["50", "60", None]).dictionary_encode(),
    "dictionary of numbers": pyarrow.array([50, 60, None]).dictionary_encode(),
    "large texts": pyarrow.array(["50", "60", ""], pyarrow.large_string()),
    "text views": pyarrow.array(["50", "60", ""], pyarrow.string_view()),
}
CODED = SIMPLE.replace('"number"', '"number"\nmissing = ["-9"]')


@pytest.mark.parametrize("ages", AGES.values(), ids=AGES)
def test_numbers_of_every_type(tmp_path: Path, ages: Any) -> None:
    found = table(tmp_path, CODED, died=[1, 0, 0], sex=SEX, age=ages)
    np.testing.assert_array_equal(found.numbers["age"], [50.0, 60.0, NAN])


SEXES = {
    "texts": pyarrow.array(["1", "2", None]),
    "integers": pyarrow.array([1, 2, None], pyarrow.int16()),
    "doubles": pyarrow.array([1.0, 2.0, NAN]),
    "dictionary": pyarrow.array(["1", "2", None]).dictionary_encode(),
    "empty text": pyarrow.array(["1", "2", ""]),
}


@pytest.mark.parametrize("sexes", SEXES.values(), ids=SEXES)
def test_categories_of_every_type(tmp_path: Path, sexes: Any) -> None:
    found = table(tmp_path, SIMPLE.replace('["F", "M"]', '["1", "2"]'), died=[1, 0, 0], sex=sexes, age=[5, 6, 7])
    assert found.codes["sex"].tolist() == [0, 1, UNKNOWN]


def test_booleans_are_numbers_categories_and_labels(tmp_path: Path) -> None:
    text = SIMPLE.replace('["F", "M"]', "[false, true]").replace('["1"]', "[true]").replace('["0"]', "[false]")
    both = [True, False, None]
    found = table(tmp_path, text, died=[True, False, True], sex=both, age=both)
    np.testing.assert_array_equal(found.numbers["age"], [1.0, 0.0, NAN])
    assert found.codes["sex"].tolist() == [1, 0, UNKNOWN]
    assert found.labels[:, 0].tolist() == [1.0, 0.0, 1.0]


def test_a_column_of_nulls_is_not_known(tmp_path: Path) -> None:
    found = table(tmp_path, died=[1, 0], sex=pyarrow.nulls(2), age=pyarrow.nulls(2))
    np.testing.assert_array_equal(found.numbers["age"], [NAN, NAN])
    assert found.codes["sex"].tolist() == [UNKNOWN, UNKNOWN]


@pytest.mark.parametrize(
    ("ages", "said"),
    [
        ([datetime.date(2020, 1, 1)], "column 'age' holds dates; a model takes numbers, so store an age or the days"),
        ([datetime.datetime(2020, 1, 1)], "column 'age' holds dates"),
        ([datetime.time(12, 0)], "column 'age' holds dates"),
        ([b"50"], "column 'age' holds bytes; store it as text"),
        ([[50, 60]], "column 'age' holds values of type list<"),
        ([{"years": 50}], "column 'age' holds values of type struct<"),
        (["old"], "row 1, column 'age' is not a number"),
        ([float("inf")], "row 1, column 'age' is beyond 1e+15"),
    ],
)
def test_what_a_model_cannot_take(tmp_path: Path, ages: list[Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        table(tmp_path, died=[1], sex=["F"], age=ages)
    assert said in str(caught.value)
    ignored = SIMPLE.replace('"number"', '"ignore"')
    assert table(tmp_path, ignored, died=[1], sex=["F"], age=ages).labels.tolist() == [[1.0]]


def test_rows_are_numbered_from_1_over_all_batches(tmp_path: Path) -> None:
    count = CHUNK_ROWS + 3
    with pytest.raises(UsageError, match=f"north.parquet: row {count}, column 'sex' is none of its declared"):
        table(tmp_path, died=[1] * count, sex=["F"] * (count - 1) + ["D"], age=range(count))


def test_the_file_must_be_one_and_have_rows_and_the_columns(tmp_path: Path) -> None:
    path = declared(tmp_path)
    with pytest.raises(UsageError, match="is not a readable Parquet file; export it again"):
        read_table(written(tmp_path, "age,sex,died\n", "north.parquet"), load_declaration(path))
    with pytest.raises(UsageError, match="has columns but no rows"):
        table(tmp_path, died=pyarrow.array([], pyarrow.int8()), sex=[], age=[])
    with pytest.raises(UsageError, match="has no column 'age'; add it, or declare it with optional = true"):
        table(tmp_path, died=[1], sex=["F"])
    twice = pyarrow.table([[1], [2], [3], ["F"]], names=["died", "age", "age", "sex"])
    parquet.write_table(twice, tmp_path / "north.parquet")
    with pytest.raises(UsageError, match="has two columns named 'age'"):
        read_table(tmp_path / "north.parquet", load_declaration(path))


def test_a_file_that_ends_too_early(tmp_path: Path) -> None:
    whole = saved(tmp_path, died=[1] * 5000, sex=["F"] * 5000, age=np.random.default_rng(0).normal(size=5000))
    content = bytearray(whole.read_bytes())
    content[200 : len(content) // 2] = bytes(len(content) // 2 - 200)
    with pytest.raises(UsageError, match=r"is damaged after row 0|is not a readable"):
        read_table(written(tmp_path, bytes(content), "broken.parquet"), loaded(tmp_path))


def test_a_column_whose_name_looks_like_a_path(tmp_path: Path) -> None:
    text = SIMPLE.replace("[columns.age]", '[columns."age.in.years"]')
    found = table(tmp_path, text, **{"died": [1, 0], "sex": ["F", "M"], "age.in.years": [50, 60], "age": [1, 2]})
    assert found.numbers["age.in.years"].tolist() == [50.0, 60.0]


def test_it_is_the_table_of_the_same_csv(tmp_path: Path) -> None:
    text = "age,sex,died\n50,F,1\n,M,0\n61.5,,\n70,F,0\n"
    csv = read(tmp_path, text)
    same = table(tmp_path, age=[50, None, 61.5, 70], sex=["F", "M", None, "F"], died=[1, 0, None, 0])
    np.testing.assert_array_equal(same.numbers["age"], csv.numbers["age"])
    assert same.codes["sex"].tolist() == csv.codes["sex"].tolist()
    assert same.labels.tolist() == csv.labels.tolist()
    assert same.notes == csv.notes


def test_without_pyarrow_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, honest = saved(tmp_path, died=[1], sex=["F"], age=[5]), builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError("No module named 'pyarrow'")
        return honest(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install 'fedqueue\[parquet\]', or export CSV"):
        read_table(path, loaded(tmp_path))
