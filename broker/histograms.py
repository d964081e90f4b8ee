"""Counts of held-out rows by predicted probability and label: measures over hospitals whose rows stay apart.

A site sends the counts among its metrics, as "scores.p00" to "scores.p25" (rows with the label) and "scores.n00" to
"scores.n25" (rows without). Sums of them give area under the curve and calibration over the rows of all sites, to
within a bound that follows from the same counts. Only counts of one and the same model may be summed.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]
NAME: Final = "scores"

# Bins of predicted probability: tenths, halved but for the first and the last, which are finer because the risk of
# most outcomes is small. With 26 of them, two labels and five plain measures are 57 of the 64 numbers of an update.
_FINE: Final = (0.0, 0.01, 0.02, 0.04, 0.07)
EDGES: Final = np.array(
    [*_FINE, *(twentieth / 20 for twentieth in range(2, 19)), *(1.0 - edge for edge in reversed(_FINE))]
)
BINS: Final = len(EDGES) - 1
TENTH: Final = np.floor(10 * (EDGES[:-1] + EDGES[1:]) / 2).astype(np.int64)  # of each bin, the tenth it lies in
KEYS: Final = frozenset(f"{label}{place:02}" for label in "pn" for place in range(BINS))


def histogram_of(metrics: Mapping[str, float]) -> dict[str, float] | None:
    """The counts among a site's metrics, None if they are not there or cannot be counts."""
    prefix = f"{NAME}."
    found = {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}
    whole = found.keys() == KEYS and all(0 <= value < math.inf for value in found.values())
    return found if whole else None


def without_histogram(metrics: Mapping[str, float]) -> dict[str, float]:
    """All other metrics."""
    return {name: value for name, value in metrics.items() if not name.startswith(f"{NAME}.")}


def pooled_auc(histograms: Iterable[Mapping[str, float]]) -> float:
    """Area under the ROC curve over the rows of all `histograms`, where rows of one bin count as ties.

    It is within `pooled_auc_bound` of the area over the rows themselves; `math.nan` if one class is absent.
    """
    positive, negative = _summed(histograms)
    pairs = positive.sum() * negative.sum()
    below = np.cumsum(negative) - negative / 2
    return float((positive * below).sum() / pairs) if pairs else math.nan


def pooled_auc_bound(histograms: Iterable[Mapping[str, float]]) -> float:
    """The most that `pooled_auc` can be off: half the share of pairs that lie in one bin, each counted half by it."""
    positive, negative = _summed(histograms)
    pairs = positive.sum() * negative.sum()
    return float((positive * negative).sum() / pairs / 2) if pairs else math.nan


def pooled_calibration(histograms: Iterable[Mapping[str, float]]) -> float:
    """Expected calibration error over the rows of all `histograms`, each row taken at the middle of its bin.

    It is within `pooled_calibration_bound` of `calibration` over the rows themselves; `math.nan` without rows.
    """
    positive, negative = _summed(histograms)
    rows = positive + negative
    gaps = np.bincount(TENTH, weights=rows * (EDGES[:-1] + EDGES[1:]) / 2 - positive, minlength=10)
    return float(np.abs(gaps).sum() / rows.sum()) if rows.sum() else math.nan


def pooled_calibration_bound(histograms: Iterable[Mapping[str, float]]) -> float:
    """The most that `pooled_calibration` can be off: half a bin's width, on average over the rows; never over 0.025."""
    rows = np.sum(_summed(histograms), axis=0)
    return float((rows * np.diff(EDGES)).sum() / rows.sum() / 2) if rows.sum() else math.nan


def _summed(histograms: Iterable[Mapping[str, float]]) -> tuple[Counts, Counts]:
    """Positive and negative rows by bin."""
    several = list(histograms)
    positive, negative = (
        np.array([sum(one[f"{label}{place:02}"] for one in several) for place in range(BINS)], dtype=np.float64)
        for label in "pn"
    )
    return positive, negative
