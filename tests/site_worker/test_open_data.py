"""The pooled data sets of scikit-learn."""

import math

import numpy as np
import pytest

from site_worker.tasks.divided import labels_of
from site_worker.tasks.open_data import breast_cancer, digits, right
from site_worker.tasks.task import Task


@pytest.mark.parametrize(("task", "rows", "classes"), [(digits(), 1438, 10), (breast_cancer(), 455, 2)])
def test_a_fifth_is_held_out_and_the_rest_has_all_classes(task: Task, rows: int, classes: int) -> None:
    split = task.split(None)
    assert len(split.train) == rows  # type: ignore[arg-type]
    assert len(split.test) == (1797 if classes == 10 else 569) - rows  # type: ignore[arg-type]
    assert len(set(labels_of(task).tolist())) == classes


def test_a_seed_is_one_set_of_test_rows() -> None:
    assert labels_of(digits()).tolist() == labels_of(digits()).tolist()
    assert labels_of(digits()).tolist() != labels_of(digits(seed=1)).tolist()


def test_right_is_the_share_of_rows_whose_class_scores_highest() -> None:
    scores = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    assert right(scores, np.array([1, 0, 0, 0])) == 0.75
    assert math.isnan(right(scores[:0], np.array([])))
