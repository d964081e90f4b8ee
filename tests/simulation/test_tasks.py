"""Real tasks in a simulation: each way of dividing them, what is measured, and the federation's common scale."""

from pathlib import Path

import numpy as np
import pytest

from broker.errors import UsageError
from deploy.simulation.run import simulate
from deploy.simulation.scenario import Scenario, parse
from deploy.simulation.tasks import TaskLearning

CANCER = """
title = "t"
[task]
name = "site_worker.tasks.open_data:breast_cancer"
options = {hidden = 4}
[plan]
steps = 3
[stop]
seconds = 60
"""
NATURAL = """
title = "t"
[task]
name = "site_worker.tasks.synthetic:tiny"
options = {rows = 40}
[sites]
number = 2
split = "natural"
options = [{site = 1}, {site = 2}]
[plan]
steps = 5
[aggregation]
buffer_size = 2
[stop]
seconds = 60
"""


def scenario(text: str) -> Scenario:
    return parse(text, Path("t.toml"))


@pytest.mark.parametrize("split", ["even", "dirichlet", "quantity", "features"])
def test_a_pooled_task_is_divided_among_sites_that_can_train_and_be_judged(split: str) -> None:
    learning = TaskLearning.of(scenario(f'{CANCER}[sites]\nnumber = 4\nsplit = "{split}"\nshift = 2.0\n'), seed=1)
    assert learning.names == ("S1", "S2", "S3", "S4")
    assert learning.metric == "accuracy"
    rows = [learning.rounds(name).greeting().examples for name in learning.names]
    assert 340 <= sum(rows) <= 380  # four fifths of 455: each site keeps a fifth
    own = learning.own(learning.initial)
    assert set(own) == set(learning.names)
    assert learning.measures(learning.initial)["rows"] == 114
    assert 0.0 <= (learning.of_site(learning.initial, "S1") or 0.0) <= 1.0


def test_shifted_features_are_another_task_at_each_site() -> None:
    even, shifted = (
        TaskLearning.of(scenario(f'{CANCER}[sites]\nnumber = 2\nsplit = "{split}"\nshift = 8.0\n'), seed=1)
        for split in ("even", "features")
    )
    assert even.measures(even.initial) == shifted.measures(shifted.initial)
    assert even.own(even.initial) != shifted.own(shifted.initial)


def test_the_classes_of_a_site_are_what_an_absence_is_judged_by() -> None:
    text = f'{CANCER}[sites]\nnumber = 2\nsplit = "dirichlet"\nalpha = 0.05\n'
    learning = TaskLearning.of(scenario(text), seed=4)
    first, second = (learning.of_site(learning.initial, name) for name in learning.names)
    assert first != second


def test_sites_of_their_own_share_the_scale_that_the_federation_found() -> None:
    result = simulate(scenario(NATURAL), "t", "", 0)
    assert result.sound
    assert result.metric == "auc"
    assert set(result.own) == {"S1", "S2"}
    assert result.final["rows"] == 20
    assert result.final["auc"] > 0.7


def test_the_start_follows_from_the_seed() -> None:
    text = f"{CANCER}[sites]\nnumber = 2\n"
    one, same, other = (TaskLearning.of(scenario(text), seed).initial for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_task_without_the_metric_is_told() -> None:
    text = NATURAL.replace("rows = 40", "rows = 1").replace("steps = 5", "steps = 1")
    with pytest.raises(UsageError, match="gives no auc here; are any of its rows held out"):
        simulate(scenario(text), "t", "", 0)
