"""Measures of a model on held-out rows, in numpy."""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def auc(scores: Array, labels: Array) -> float:
    """Area under the ROC curve for 0/1 `labels`: how often a positive row outranks a negative one; a tie is half.

    The Mann-Whitney statistic over midranks. Shapes are flattened. `math.nan` where it is undefined: when one class is
    absent, or a score is NaN; the trainer leaves such numbers out.
    """
    flat, positive = np.ravel(scores), np.ravel(labels) > 0.5
    positives = int(positive.sum())
    negatives = len(flat) - positives
    if not positives or not negatives or bool(np.isnan(flat).any()):
        return math.nan
    _, place, count = np.unique(flat, return_inverse=True, return_counts=True)
    midrank = np.cumsum(count) - (count - 1) / 2
    above = float(midrank[place][positive].sum()) - positives * (positives + 1) / 2
    return above / (positives * negatives)


def suggested(scores: Array, labels: Array, *, places: int = 3, unknown: int = -100) -> float:
    """How often the right class is among the `places` highest scores, as on a keyboard that suggests words.

    Scores have shape (rows, classes, ...), labels (rows, ...); those that are `unknown` do not count, as in torch's
    cross_entropy. `math.nan` if none counts.
    """
    counted = labels != unknown
    highest = np.argsort(scores, axis=1)[:, -places:]
    return float((highest == labels[:, None]).any(axis=1)[counted].mean()) if counted.any() else math.nan
