"""Tasks with drawn rows: one of any size for benchmarks, and a tiny one that trains in milliseconds."""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import TensorDataset

from broker.errors import UsageError
from broker.statistics import FeatureStatistics
from site_worker.metrics import auc
from site_worker.tasks.task import Split, Task

INPUTS: Final = 32


def tiny(site: int = 0, rows: int = 64, features: int = 4, seed: int = 0) -> Task:
    """Logistic regression. All sites of a `seed` share the truth; each `site` sees its own, shifted rows of it."""
    x, y = _drawn(site, rows, features, seed)
    held_out = rows // 4

    def statistics() -> FeatureStatistics:
        return FeatureStatistics.of(x[held_out:])

    def split(common: FeatureStatistics | None) -> Split:
        scale = common or statistics()
        scaled = (x - scale.mean) / scale.std
        return Split(_tensors(scaled[held_out:], y[held_out:]), _tensors(scaled[:held_out], y[:held_out]))

    return Task(
        "tiny", lambda: nn.Linear(features, 1), split, binary_cross_entropy_with_logits, {"auc": auc}, statistics
    )


def synthetic(parameters: int = 1_000_000, seed: int = 0, site: int = 0, rows: int = 256) -> Task:
    """A three-layer network of about `parameters` parameters on few rows: updates of real size, cheap to make."""
    width = int((-(INPUTS + 3) + math.sqrt((INPUTS + 3) ** 2 + 4 * (parameters - 1))) / 2)
    if width < 1:
        raise UsageError(f"A synthetic model of {parameters} parameters is too small; choose at least {INPUTS + 5}.")

    def split(_: FeatureStatistics | None) -> Split:
        x, y = _drawn(site, rows, INPUTS, seed)
        held_out = rows // 4
        return Split(_tensors(x[held_out:], y[held_out:]), _tensors(x[:held_out], y[:held_out]))

    return Task("synthetic", _network(width), split, binary_cross_entropy_with_logits, {"auc": auc})


def _network(width: int) -> Callable[[], nn.Module]:
    """Its size for width w is w^2 + (INPUTS + 3) w + 1."""
    return lambda: nn.Sequential(
        nn.Linear(INPUTS, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
    )


def _drawn(site: int, rows: int, features: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    truth = np.random.default_rng([seed, 0]).normal(size=features)
    random = np.random.default_rng([seed, site + 1])
    x = random.normal(size=(rows, features)) + random.normal(scale=0.5, size=features)
    chance = 1 / (1 + np.exp(-4 * (x @ truth) / np.linalg.norm(truth)))
    return x, (random.random(rows) < chance).astype(np.float64)[:, None]


def _tensors(x: NDArray[np.float64], y: NDArray[np.float64]) -> TensorDataset:
    return TensorDataset(torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32))
