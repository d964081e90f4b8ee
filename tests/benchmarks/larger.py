"""Pooled tasks for models of a million parameters, generated from a seed: what tests/benchmarks/compression.py trains.

`distorted`: scikit-learn's digits, each turned, sheared, scaled and moved at random, with noise: 6,000 to learn from
and 5,000 to be judged on, from digits that are kept apart. `clusters`: forty classes of three clusters each in a space
of 384 dimensions, so that what is learned is of high rank.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample
from torch.utils.data import TensorDataset

from site_worker.tasks.open_data import right
from site_worker.tasks.task import Split, Task

Numbers = NDArray[np.float64]
LEARNED, JUDGED = 6000, 5000
APART: Final = 500  # digits that only the judged ones are made from
FEATURES, CLASSES, CLUSTERS = 384, 40, 3
NEARNESS: Final = 0.3  # of the clusters: their spread around 0, where that of the rows around them is 1


def distorted(seed: int, hidden: int = 1024) -> Task:
    """Ten classes; two hidden layers: 1,126,410 parameters."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - takes a second

    random, known = np.random.default_rng([seed, 1]), load_digits()
    order = random.permutation(len(known.target))
    parts = (order[APART:], LEARNED), (order[:APART], JUDGED)
    rows = [random.choice(part, many) for part, many in parts]
    train, test = (TensorDataset(_distort(known.images[one], random), torch.tensor(known.target[one])) for one in rows)
    return _task("distorted", Split(train, test), inputs=64, hidden=hidden, classes=10)


def clusters(seed: int, hidden: int = 1024) -> Task:
    """Forty classes; two hidden layers: 1,484,840 parameters."""
    random = np.random.default_rng([seed, 5])
    middles = random.normal(0, NEARNESS, (CLASSES, CLUSTERS, FEATURES))
    labels = random.integers(0, CLASSES, LEARNED + JUDGED)
    rows = middles[labels, random.integers(0, CLUSTERS, len(labels))] + random.normal(size=(len(labels), FEATURES))
    x, y = torch.tensor(rows, dtype=torch.float32), torch.tensor(labels)
    split = Split(TensorDataset(x[:LEARNED], y[:LEARNED]), TensorDataset(x[LEARNED:], y[LEARNED:]))
    return _task("clusters", split, inputs=FEATURES, hidden=hidden, classes=CLASSES)


def _task(name: str, split: Split, *, inputs: int, hidden: int, classes: int) -> Task:
    def model() -> nn.Module:
        layers = (nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        return nn.Sequential(*layers, nn.Linear(hidden, classes))

    return Task(name, model, lambda _: split, cross_entropy, {"accuracy": right})


def _distort(images: Numbers, random: np.random.Generator) -> Tensor:
    many = len(images)
    angle, shear = random.uniform(-0.25, 0.25, many), random.uniform(-0.2, 0.2, many)
    scale, moved = random.uniform(0.85, 1.2, many), random.uniform(-0.2, 0.2, (many, 2))
    maps = np.zeros((many, 2, 3))
    maps[:, 0, 0], maps[:, 0, 1] = scale * np.cos(angle), -scale * np.sin(angle) + shear
    maps[:, 1, 0], maps[:, 1, 1] = scale * np.sin(angle), scale * np.cos(angle)
    maps[:, :, 2] = moved
    x = torch.tensor(images / 16, dtype=torch.float32)[:, None]
    x = grid_sample(x, affine_grid(torch.tensor(maps, dtype=torch.float32), list(x.shape), False), align_corners=False)
    noise = torch.tensor(random.normal(0, 0.15, tuple(x.shape)), dtype=torch.float32)
    return (x + noise - 0.3) / 0.35
