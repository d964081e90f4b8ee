"""Accuracy, Brier score, calibration and Harrell's index by hand and against their definitions in loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from site_worker.metrics import Array, accuracy, brier, c_index, calibration, probabilities, risk_histogram


def odds(*chances: float) -> NDArray[np.float64]:
    """Log odds, as a model gives them."""
    return np.array([[math.log(chance / (1 - chance))] for chance in chances])


def labels(*values: float) -> NDArray[np.float64]:
    return np.array(values)[:, None]


def test_accuracy_is_the_share_on_the_right_side() -> None:
    assert accuracy(odds(0.9, 0.6, 0.4, 0.1), labels(1, 0, 1, 0)) == 0.5
    assert accuracy(labels(0.0), labels(0)) == 1.0  # a chance of a half is not over a half


def test_brier_by_hand() -> None:
    assert brier(odds(0.8, 0.3), labels(1, 0)) == pytest.approx((0.04 + 0.09) / 2)


def test_calibration_by_hand() -> None:
    """In the fourth tenth 0.32 and 0.38 are predicted and one of two is positive; in the tenth 0.95, and it is."""
    found = calibration(odds(0.32, 0.38, 0.95), labels(1, 0, 1))
    assert found == pytest.approx((2 * abs(0.35 - 0.5) + abs(0.95 - 1)) / 3)


@pytest.mark.parametrize("measure", [accuracy, brier, calibration])
def test_without_rows_or_with_nan_they_are_undefined(measure: object) -> None:
    assert callable(measure)
    assert math.isnan(measure(np.empty((0, 1)), np.empty((0, 1))))
    assert math.isnan(measure(labels(math.nan, 1.0), labels(0, 1)))


def test_extreme_scores_are_probabilities_without_overflow() -> None:
    found = probabilities(np.array([-1e30, -800.0, 0.0, 800.0, math.inf], dtype=np.float32))
    assert found.tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


@given(st.lists(st.tuples(st.floats(-30, 30), st.sampled_from([0.0, 1.0])), min_size=1, max_size=30))
def test_calibration_is_its_definition(rows: list[tuple[float, float]]) -> None:
    scores, positive = (np.array(one) for one in zip(*rows, strict=True))
    chance = probabilities(scores)
    tenth = [sum(edge <= one for edge in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)) for one in chance]
    expected = 0.0
    for place in set(tenth):
        inside = np.array([one == place for one in tenth])
        expected += inside.mean() * abs(chance[inside].mean() - positive[inside].mean())
    assert calibration(scores, positive) == pytest.approx(expected, abs=1e-12)


def survival(*patients: tuple[float, float, float]) -> float:
    """The index of patients given as (risk, time, event)."""
    table = np.array(patients)
    return c_index(table[:, :1], table[:, 1:])


@pytest.mark.parametrize(
    ("patients", "expected"),
    [
        ([(3, 1, 1), (2, 2, 1), (1, 3, 0)], 1.0),
        ([(1, 1, 1), (2, 2, 1), (3, 3, 0)], 0.0),
        ([(2, 1, 1), (2, 2, 1)], 0.5),  # equal risks
        ([(2, 1, 1), (1, 1, 0)], 1.0),  # the second was alive when last seen, as the first died
        ([(1, 1, 0), (2, 2, 1), (0, 3, 0)], 1.0),  # whoever left first can be compared with nobody
        ([(3, 1, 1), (1, 1, 1), (2, 2, 0)], 0.5),  # deaths at one time are not compared: of two pairs one is right
    ],
)
def test_c_index_by_hand(patients: list[tuple[float, float, float]], expected: float) -> None:
    assert survival(*patients) == expected


@pytest.mark.parametrize(
    "patients", [[(1, 1, 1)], [(1, 1, 0), (2, 2, 0)], [(1, 1, 1), (2, 1, 1)], [(math.nan, 1, 1), (1, 2, 0)]]
)
def test_c_index_is_undefined_where_nobody_can_be_compared(patients: list[tuple[float, float, float]]) -> None:
    assert math.isnan(survival(*patients))


def in_loops(risks: Array, times: Array, events: Array) -> float:
    pairs = right = 0.0
    for one in range(len(risks)):
        for other in range(len(risks)):
            later = times[one] < times[other] or (times[one] == times[other] and not events[other])
            if one != other and events[one] and later:
                pairs += 1
                right += (risks[one] > risks[other]) + (risks[one] == risks[other]) / 2
    return right / pairs if pairs else math.nan


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 1)), min_size=1, max_size=40))
def test_c_index_is_its_definition(patients: list[tuple[int, int, int]]) -> None:
    table = np.array(patients, dtype=np.float64)
    expected = in_loops(*table.T)
    np.testing.assert_array_equal(c_index(table[:, :1], table[:, 1:]), expected)


def test_c_index_of_many_patients_needs_memory_of_their_number_not_of_their_pairs() -> None:
    """Of 50,000 patients the pairs would be 20 GB; risk and time are the same order but for a half that is tied."""
    times = np.arange(50_000.0)
    table = np.column_stack([-np.maximum(times, 25_000), times, np.ones_like(times)])
    tied = 25_001 * 25_000 / 2
    assert c_index(table[:, :1], table[:, 1:]) == pytest.approx(1 - tied / 2 / (50_000 * 49_999 / 2), rel=1e-9)


def test_a_histogram_counts_both_labels_by_probability() -> None:
    found = risk_histogram(odds(0.005, 0.03, 0.51, 0.52, 0.999), labels(0, 1, 1, 0, 1))
    assert {name: count for name, count in found.items() if count} == {"n00": 1, "p02": 1, "p13": 1, "n13": 1, "p25": 1}
    assert risk_histogram(labels(math.nan), labels(1)) == {}
    assert set(risk_histogram(np.empty((0, 1)), np.empty((0, 1))).values()) == {0.0}
