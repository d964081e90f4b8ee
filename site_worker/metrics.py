"""Measures of a model on held-out rows, in numpy.

Where nothing else is said, `scores` are log odds and `labels` 0 or 1; shapes are flattened. A measure that is undefined
is `math.nan`, which the trainer leaves out: no rows, a score that is NaN, one class where two are needed.

`risk_histogram` counts rows in the bins of broker/histograms.py, whose sums give measures over all hospitals.
"""

import math

import numpy as np
from numpy.typing import NDArray

from broker.histograms import BINS, EDGES, TENTH

Array = NDArray[np.floating]
Counts = NDArray[np.float64]


def auc(scores: Array, labels: Array) -> float:
    """Area under the ROC curve for 0/1 `labels`: how often a positive row outranks a negative one; a tie is half.

    The Mann-Whitney statistic over midranks. `math.nan` where it is undefined: when one class is absent, or a score is
    NaN.
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


def accuracy(scores: Array, labels: Array) -> float:
    """Share of rows whose label is the more probable one."""
    if not _measurable(scores):
        return math.nan
    return float(np.mean((np.ravel(scores) > 0) == (np.ravel(labels) > 0.5)))


def brier(scores: Array, labels: Array) -> float:
    """Mean squared difference of predicted probability and label (Brier 1950); 0 is perfect, 0.25 is a coin."""
    if not _measurable(scores):
        return math.nan
    return float(np.mean(np.square(probabilities(scores) - (np.ravel(labels) > 0.5))))


def calibration(scores: Array, labels: Array) -> float:
    """Expected calibration error over ten equal bins of probability (Naeini et al. 2015); 0 is perfect.

    The mean over rows of how far, in its bin, the mean predicted probability is from the share of positive rows.
    """
    if not _measurable(scores):
        return math.nan
    predicted, positive = probabilities(scores), np.ravel(labels) > 0.5
    tenth = TENTH[_bins(predicted)]
    gaps = np.bincount(tenth, weights=predicted - positive, minlength=10)
    return float(np.abs(gaps).sum() / len(predicted))


def c_index(scores: Array, labels: Array) -> float:
    """Harrell's concordance (Harrell et al. 1982): how often the patient at higher risk has the event first.

    `scores` are log risks; `labels`, shape (rows, 2), are time and whether the event came. Two patients can be compared
    if the event of one came before the other's time, or at that time and the other's observation ended with it. Equal
    risks count half. O(n log^2 n) time, O(n) memory; `math.nan` if no two can be compared.
    """
    risk, times, events = np.ravel(scores), labels[:, 0], labels[:, 1] > 0.5
    if not _measurable(risk):
        return math.nan
    # Behind whoever lives longer; of one moment, events come last, the lowest risk first of all behind the higher.
    order = np.lexsort((-risk, events, -times))
    rank = np.unique(risk, return_inverse=True)[1][order]
    lower, not_higher = _before(rank)
    comes = events[order]
    same = np.flatnonzero(comes)
    moment = np.unique(times[order][same], return_inverse=True)[1]
    tied = _earlier_equals(moment)
    both = _earlier_equals(moment * len(rank) + rank[same])
    pairs = float((same - tied).sum())
    right = float(lower[same].sum()) + float((not_higher - lower)[same].sum() - both.sum()) / 2
    return right / pairs if pairs else math.nan


def risk_histogram(scores: Array, labels: Array) -> dict[str, float]:
    """Rows by predicted probability: "p00" to "p25" count the positive ones between EDGES, "n00" to "n25" the others.

    Nothing if a score is NaN.
    """
    if bool(np.isnan(scores).any()):
        return {}
    place, positive = _bins(probabilities(scores)), np.ravel(labels) > 0.5
    counted = {"p": np.bincount(place[positive], minlength=BINS), "n": np.bincount(place[~positive], minlength=BINS)}
    return {f"{label}{number:02}": float(count) for label in counted for number, count in enumerate(counted[label])}


def probabilities(scores: Array) -> Counts:
    """Of log odds, flattened; written with tanh, which overflows nowhere."""
    return 0.5 * (1.0 + np.tanh(np.ravel(scores).astype(np.float64) / 2))


def _measurable(scores: Array) -> bool:
    return bool(scores.size) and not bool(np.isnan(scores).any())


def _bins(predicted: Counts) -> NDArray[np.intp]:
    """Of each probability its bin; an edge belongs to the bin above it, 1 to the last."""
    return np.searchsorted(EDGES[1:-1], predicted, side="right")


def _before(ranks: NDArray[np.intp]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each entry how many before it are lower, and how many are not higher.

    As in merge sort, blocks double: entries of a right block are looked up among the sorted ones of the block to their
    left, all blocks of one width at once.
    """
    lower, not_higher = np.zeros(len(ranks), dtype=np.int64), np.zeros(len(ranks), dtype=np.int64)
    place, span, width = np.arange(len(ranks)), len(ranks) + 1, 1
    while width < len(ranks):
        block = place // width
        ordered = np.sort(block * span + ranks)
        right = np.flatnonzero(block % 2)
        left = block[right] - 1
        wanted, passed = left * span + ranks[right], left * width
        lower[right] += np.searchsorted(ordered, wanted, side="left") - passed
        not_higher[right] += np.searchsorted(ordered, wanted, side="right") - passed
        width *= 2
    return lower, not_higher


def _earlier_equals(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each entry how many before it are equal to it."""
    order = np.argsort(keys, kind="stable")
    _, first, place = np.unique(keys[order], return_index=True, return_inverse=True)
    counts = np.empty(len(keys), dtype=np.int64)
    counts[order] = np.arange(len(keys)) - first[place]
    return counts
