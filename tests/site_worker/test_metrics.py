import math

import numpy as np
import pytest

from site_worker.metrics import auc


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0.0),
        ([1, 2, 3, 4], [0, 1, 0, 1], 0.75),  # of four pairs, 2 against 3 is wrong
        ([5, 5, 5, 5], [0, 1, 0, 1], 0.5),
        ([1, 2, 2, 3], [0, 0, 1, 1], 0.875),  # one of four pairs is a tie
        ([0.1, 0.4, 0.35, 0.8, 0.4], [0, 0, 1, 1, 1], 4.5 / 6),
    ],
)
def test_it_is_the_share_of_pairs_in_the_right_order(scores: list[float], labels: list[float], expected: float) -> None:
    assert auc(np.array(scores), np.array(labels)) == pytest.approx(expected, abs=1e-12)


def test_it_is_the_same_for_columns_and_whatever_the_scale_of_the_scores() -> None:
    scores, labels = np.array([[0.1], [0.4], [0.35], [0.8]]), np.array([[0.0], [0.0], [1.0], [1.0]])
    assert auc(scores, labels) == auc(100 * scores - 7, labels) == 0.75


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 0, 0]])
def test_it_is_undefined_when_a_class_is_absent(labels: list[int]) -> None:
    assert math.isnan(auc(np.array([1.0, 2.0, 3.0]), np.array(labels, dtype=np.float64)))


def test_it_is_undefined_when_a_score_is_nan() -> None:
    assert math.isnan(auc(np.array([1.0, math.nan, 3.0]), np.array([0.0, 1.0, 1.0])))
