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
