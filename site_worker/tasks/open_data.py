"""Pooled public data sets that come with scikit-learn: small enough for a simulation of many sites on a laptop.

`digits`: 1,797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak 1998). `breast_cancer`: 569 tumours described by
30 numbers (Wolberg et al. 1995). Both are whole data sets, for a simulator to divide: see site_worker/tasks/divided.py.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from broker.errors import UsageError
from site_worker.tasks.task import Split, Task

HELD_OUT_SHARE: Final = 0.2


def digits(hidden: int = 32, seed: int = 0) -> Task:
    """Ten classes; a network with one hidden layer. `seed` draws the common test rows."""
    rows, labels = _loaded("load_digits")
    return _task("digits", rows / 16.0, labels, hidden, classes=10, seed=seed)


def breast_cancer(hidden: int = 16, seed: int = 0) -> Task:
    """Two classes, benign and malignant; features scaled by the mean and deviation of all rows."""
    rows, labels = _loaded("load_breast_cancer")
    return _task("breast_cancer", (rows - rows.mean(axis=0)) / rows.std(axis=0), labels, hidden, classes=2, seed=seed)


def right(scores: NDArray[np.floating], labels: NDArray[np.floating]) -> float:
    """Share of rows whose highest score is that of their class."""
    return float(np.mean(scores.argmax(axis=1) == labels)) if len(labels) else float("nan")


def _loaded(name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    try:
        from sklearn import datasets  # noqa: PLC0415 - only who asks for these needs it
    except ModuleNotFoundError as error:
        raise UsageError("This data set needs scikit-learn: run pip install 'fedqueue[demo]'.") from error
    load: Callable[..., Any] = getattr(datasets, name)
    rows, labels = load(return_X_y=True)
    return rows.astype(np.float64), labels.astype(np.int64)


def _task(
    name: str, rows: NDArray[np.float64], labels: NDArray[np.int64], hidden: int, *, classes: int, seed: int
) -> Task:
    order = np.random.default_rng([seed, 1]).permutation(len(rows))
    x, y = torch.tensor(rows[order], dtype=torch.float32), torch.tensor(labels[order])
    test = round(len(rows) * HELD_OUT_SHARE)
    split = Split(TensorDataset(x[test:], y[test:]), TensorDataset(x[:test], y[:test]))
    return Task(name, _network(rows.shape[1], hidden, classes), lambda _: split, _loss, {"accuracy": right})


def _network(features: int, hidden: int, classes: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def _loss(scores: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(scores, labels)
