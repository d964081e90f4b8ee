"""Features by hand: scaled numbers, indicators, categories; and which rows are held out."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import UsageError
from broker.statistics import FeatureStatistics
from site_worker.tabular.features import Features, held_out
from site_worker.tabular.table import Table
from tests.tabular.bench import SIMPLE, loaded, read

WIDE = SIMPLE.replace('"number"', '"number"\nindicator = true').replace('["F", "M"]', '["F", "M"]\nother = true')
WIDE += '[columns.lactate]\nrole = "number"\noptional = true\n'
# Mean 60 and spread 10 of age; nobody measured lactate.
COMMON = FeatureStatistics(np.array([2.0, 0.0]), np.array([120.0, 0.0]), np.array([7400.0, 0.0]))


def made(folder: Path, table: Table, scale: FeatureStatistics, text: str = WIDE) -> list[list[float]]:
    features, rows = Features.of(loaded(folder, text)), np.arange(len(table.labels))
    out = np.empty((len(rows), features.width), dtype=np.float32)
    features.fill(out, table, rows, scale)
    found: list[list[float]] = out.tolist()
    return found


def test_numbers_then_indicators_then_categories_with_the_others_last(tmp_path: Path) -> None:
    table = read(tmp_path, "age,sex,died,lactate\n70,F,1,3\n,M,0,\n45,X,0,-1\n60,,0,0\n", WIDE)
    assert made(tmp_path, table, COMMON) == [
        [1.0, 3.0, 0.0, 1.0, 0.0, 0.0],
        [0.0, 0.0, 1.0, 0.0, 1.0, 0.0],
        [-1.5, -1.0, 0.0, 0.0, 0.0, 1.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    ]


def test_a_column_that_is_missing_entirely_is_the_federations_mean(tmp_path: Path) -> None:
    everywhere = read(tmp_path, "age,sex,died,lactate\n,F,1,\n,M,0,\n", WIDE)
    nowhere = read(tmp_path, "age,sex,died\n,F,1\n,M,0\n", WIDE)
    assert made(tmp_path, everywhere, COMMON) == made(tmp_path, nowhere, COMMON)
    assert made(tmp_path, nowhere, COMMON) == [[0.0, 0.0, 1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 1.0, 0.0]]


def test_statistics_are_sums_of_the_chosen_rows_over_known_numbers(tmp_path: Path) -> None:
    table = read(tmp_path, "age,sex,died,lactate\n70,F,1,3\n,M,0,\n50,M,0,\n1000,M,0,8\n", WIDE)
    found = Features.of(loaded(tmp_path, WIDE)).statistics(table, np.array([0, 1, 2]))
    assert found.to_lists() == [[2.0, 1.0], [120.0, 3.0], [7400.0, 9.0]]


def test_statistics_of_another_declaration_are_refused(tmp_path: Path) -> None:
    table = read(tmp_path, "age,sex,died\n70,F,1\n", SIMPLE)
    with pytest.raises(UsageError, match="statistics are of 2 columns, this declaration has 1 numbers"):
        made(tmp_path, table, COMMON, SIMPLE)


def test_the_most_extreme_number_stays_finite(tmp_path: Path) -> None:
    tiny = FeatureStatistics.of(np.array([[0.0], [4e-9]]))
    table = read(tmp_path, "age,sex,died\n1e15,F,1\n-1e15,F,1\n", SIMPLE)
    assert np.isfinite(made(tmp_path, table, tiny, SIMPLE)).all()


def test_the_share_held_out_is_that_of_each_class() -> None:
    classes = np.array([0.0] * 80 + [1.0] * 20)
    chosen = held_out(classes, 0.25, seed=3)
    assert (chosen[:80].sum(), chosen[80:].sum()) == (20, 5)
    assert (held_out(classes, 0.25, seed=3) == chosen).all()
    assert (held_out(classes, 0.25, seed=4) != chosen).any()
    assert not held_out(classes, 0.0, seed=3).any()


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=40), st.floats(0, 0.999), st.integers(0, 9))
def test_every_class_keeps_a_row_to_train_on(classes: list[float], share: float, seed: int) -> None:
    labels = np.array(classes)
    chosen = held_out(labels, share, seed)
    for one in set(classes):
        rows = int((labels == one).sum())
        assert chosen[labels == one].sum() == min(round(share * rows), rows - 1)


def test_one_row_is_trained_on() -> None:
    assert held_out(np.array([1.0]), 0.9, seed=0).tolist() == [False]
    assert math.isclose(held_out(np.array([1.0, 0.0]), 0.5, seed=0).sum(), 0)
