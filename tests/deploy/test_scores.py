"""Scores by hand: models whose weights a reader sees, on rows a reader can count."""

import threading
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

from deploy.history import leading_metric
from deploy.scores import Effort, Model, Scores, compare, leave_out, score
from deploy.watching import StoppedError
from site_worker.plan import Plan
from site_worker.tasks.task import Array, Split, Task

EFFORT = Effort(Plan(steps=2, batch_size=10, learning_rate=0.1), rounds=3, seed=0)
IDENTITY = {"weight": np.ones((1, 1), dtype=np.float32)}


def bias_of(scores: Array, labels: Array) -> Mapping[str, float]:
    return {"bias": float(np.mean(scores - labels))}


def shifted(shift: float, held_out: int) -> Task:
    """y = x + shift: ten rows to train on, `held_out` held out."""
    x = torch.linspace(-1, 1, 10 + held_out)[:, None]
    rows = TensorDataset(x[held_out:], x[held_out:] + shift), TensorDataset(x[:held_out], x[:held_out] + shift)
    return Task("shift", lambda: nn.Linear(1, 1, bias=False), lambda _: Split(*rows), mse_loss, {"of": bias_of})


def test_each_site_the_mean_by_rows_and_all_rows_at_once() -> None:
    scores = score(Model(IDENTITY, None), {"a": shifted(1.0, 3), "b": shifted(-2.0, 1)})
    assert scores.sites["a"] == pytest.approx({"rows": 3, "loss": 1.0, "of.bias": -1.0})
    assert scores.sites["b"] == pytest.approx({"rows": 1, "loss": 4.0, "of.bias": 2.0})
    assert scores.mean == pytest.approx({"rows": 4, "loss": 1.75, "of.bias": -0.25})
    assert scores.pooled == pytest.approx({"rows": 4, "loss": 1.75, "of.bias": -0.25})
    assert scores.histograms == {}


def test_a_site_without_held_out_rows_has_no_part_in_the_mean() -> None:
    scores = score(Model(IDENTITY, None), {"a": shifted(1.0, 3), "b": shifted(-2.0, 0)})
    assert scores.sites["b"] == {"rows": 0.0}
    assert scores.mean == pytest.approx({"rows": 3, "loss": 1.0, "of.bias": -1.0})


def test_comparing_judges_every_model_on_the_same_rows() -> None:
    tasks = {"a": shifted(1.0, 3), "b": shifted(-2.0, 1)}
    before = score(Model(IDENTITY, None), tasks)
    scores = compare(before, tasks, EFFORT)
    assert list(scores.compared) == ["a alone", "b alone", "federated", "pooled"]
    assert {one["rows"] for one in scores.compared.values()} == {4.0}
    assert scores.compared["federated"] == before.pooled


def test_models_beside_the_federated_one_are_not_held_where_they_begin() -> None:
    pulled = replace(EFFORT, plan=replace(EFFORT.plan, proximal=3.0))
    free, held = (effort.model_of(shifted(1.0, 3))[0].weights["weight"].item() for effort in (EFFORT, pulled))
    assert free == held


def test_a_hospital_that_took_no_part_is_judged_on_all_its_rows_and_beside_its_own_model() -> None:
    rows = leave_out(Model(IDENTITY, None), "c", shifted(1.0, 3), EFFORT)
    assert [(name, one["rows"]) for name, one in rows.items()] == [
        ("all rows of c, federated without it", 13.0),
        ("held-out rows of c, federated without it", 3.0),
        ("held-out rows of c, c alone", 3.0),
    ]
    assert rows["all rows of c, federated without it"]["of.bias"] == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("measures", "leading"),
    [
        (["rows", "loss", "brier", "auc"], "auc"),
        (["rows", "loss", "c_index"], "c_index"),
        (["rows", "loss", "top_1"], "top_1"),
        (["rows", "loss"], "loss"),
    ],
)
def test_the_leading_metric(measures: list[str], leading: str) -> None:
    assert leading_metric(measures) == leading


def test_scores_hold_what_was_not_asked_for_empty() -> None:
    assert Scores({}, {}, {}, {}).compared == {}


def test_somebody_who_stops_it_does_not_wait_for_the_comparison() -> None:
    stopping = threading.Event()
    stopping.set()
    effort = Effort(EFFORT.plan, 1, 0, stopping)
    with pytest.raises(StoppedError):
        compare(score(Model(IDENTITY, None), {"a": shifted(1.0, 3)}), {"a": shifted(1.0, 3)}, effort)
