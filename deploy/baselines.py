"""What the clinics reach without a federation: each alone, and all rows in one place.

Every number is the area under the ROC curve over the held-out patients of all clinics together, which no model here
was trained or scaled on. A clinic alone scales everybody with its own statistics, as it would in life.
"""

import threading
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Final

import numpy as np
from numpy.typing import NDArray

from broker.statistics import FeatureStatistics
from site_worker.tasks.clinics import CLINICS, clinic, pooled
from site_worker.tasks.task import Task
from site_worker.training import Plan, Trainer, initial_weights

Weights = Mapping[str, NDArray[np.float32]]

# Each the best of those tried over ten splits; a clinic alone needs the stronger weight decay, having fewer rows.
ALONE: Final = Plan(steps=400, batch_size=32, learning_rate=0.05, weight_decay=0.1)
POOLED: Final = Plan(steps=1000, batch_size=64, learning_rate=0.05, weight_decay=0.01)


def alone(clinics: Iterable[str] = CLINICS, *, seed: int = 0) -> dict[str, float]:
    """Of each clinic's own model."""
    return {name: _auc_of_one_place(clinic(name, seed), ALONE, seed) for name in clinics}


def mean_alone(*, seed: int = 0) -> float:
    """Of the average clinic's own model."""
    return fmean(alone(seed=seed).values())


def pooled_auc(*, seed: int = 0) -> float:
    """Of one model on all training rows in one place."""
    return _auc_of_one_place(pooled(seed), POOLED, seed)


def federated_auc(weights: Weights, statistics: FeatureStatistics | None, *, seed: int = 0) -> float:
    """Of `weights` with features scaled by the federation's `statistics`."""
    return Trainer(pooled(seed), statistics, seed=seed).evaluate(weights)["auc"]


def _auc_of_one_place(task: Task, plan: Plan, seed: int) -> float:
    assert task.statistics is not None
    statistics = task.statistics()
    trained = Trainer(task, statistics, seed=seed).train(initial_weights(task), plan, threading.Event())
    return federated_auc(trained.weights, statistics, seed=seed)
