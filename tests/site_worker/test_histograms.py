"""Measures over hospitals from their histograms: how far they can be from those of the rows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.histograms import (
    BINS,
    EDGES,
    histogram_of,
    pooled_auc,
    pooled_auc_bound,
    pooled_calibration,
    pooled_calibration_bound,
    without_histogram,
)
from site_worker.metrics import auc, calibration, risk_histogram

ROWS = st.lists(st.tuples(st.floats(-8, 8), st.sampled_from([0.0, 1.0])), max_size=30)
SITES = st.lists(ROWS, min_size=1, max_size=4)
Rows = list[tuple[float, float]]


def histograms(sites: list[Rows]) -> list[dict[str, float]]:
    return [risk_histogram(*np.array(rows, dtype=np.float64).reshape(-1, 2).T) for rows in sites]


def bins(**counts: float) -> dict[str, float]:
    return {f"{label}{place:02}": counts.get(f"{label}{place:02}", 0.0) for label in "pn" for place in range(BINS)}


def test_bins_are_finer_at_the_ends_and_never_cross_a_tenth() -> None:
    assert (len(EDGES), EDGES[0], EDGES[-1]) == (BINS + 1, 0.0, 1.0)
    assert (np.diff(EDGES) > 0).all()
    assert np.diff(EDGES).max() == pytest.approx(0.05)
    assert {round(tenth / 10, 1) for tenth in range(11)} <= {round(float(edge), 3) for edge in EDGES}


def test_two_sites_by_hand() -> None:
    """A positive row in bin 20 and a negative in bin 3 at one site, one of each in bin 20 at the other."""
    sites = [bins(p20=1, n03=1), bins(p20=1, n20=1)]
    assert pooled_auc(sites) == (2 * 1 + 2 * 0.5) / 4
    assert pooled_auc_bound(sites) == 2 / 4 / 2
    low, high = (EDGES[3] + EDGES[4]) / 2, (EDGES[20] + EDGES[21]) / 2
    assert pooled_calibration(sites) == pytest.approx((low + abs(3 * high - 2)) / 4)
    assert pooled_calibration_bound(sites) == pytest.approx((0.03 + 3 * 0.05) / 4 / 2)


@given(SITES)
def test_area_and_calibration_are_within_their_bounds_of_those_of_all_rows(sites: list[Rows]) -> None:
    scores, labels = np.array([row for rows in sites for row in rows], dtype=np.float64).reshape(-1, 2).T
    counted, exact = histograms(sites), auc(scores, labels)
    if math.isnan(exact):
        assert math.isnan(pooled_auc(counted))
        assert math.isnan(pooled_auc_bound(counted))
    else:
        assert abs(pooled_auc(counted) - exact) <= pooled_auc_bound(counted) + 1e-12
        assert pooled_auc_bound(counted) <= 0.5
    if len(scores):
        error = abs(pooled_calibration(counted) - calibration(scores, labels))
        assert error <= pooled_calibration_bound(counted) + 1e-12
        assert pooled_calibration_bound(counted) <= 0.025 + 1e-12
    else:
        assert math.isnan(pooled_calibration(counted))
        assert math.isnan(pooled_calibration_bound(counted))


def test_the_bound_of_the_area_is_reached() -> None:
    one_bin = histograms([[(0.02, 1.0), (0.01, 0.0)]])
    assert pooled_auc(one_bin) == 0.5
    assert pooled_auc_bound(one_bin) == 0.5


def test_on_risks_as_they_are_in_hospitals_the_area_is_close() -> None:
    """Ten thousand rows of which some 6 % are positive; drawn once, so the figures are always the same."""
    random = np.random.default_rng(0)
    scores = random.normal(-3.2, 1.3, size=10_000)
    labels = (random.random(10_000) < 1 / (1 + np.exp(-scores))).astype(np.float64)
    counted = [risk_histogram(scores, labels)]
    assert pooled_auc_bound(counted) < 0.06
    assert pooled_auc(counted) == pytest.approx(auc(scores, labels), abs=0.005)
    assert pooled_calibration(counted) == pytest.approx(calibration(scores, labels), abs=0.005)


def test_counts_are_told_from_other_metrics_and_what_cannot_be_counts_is_none() -> None:
    counts = risk_histogram(np.zeros((3, 1)), np.ones((3, 1)))
    sent = {"auc": 0.5, **{f"scores.{name}": value for name, value in counts.items()}}
    assert histogram_of(sent) == counts
    assert without_histogram(sent) == {"auc": 0.5}
    assert histogram_of({"auc": 0.5}) is None
    assert histogram_of({name: value for name, value in sent.items() if name != "scores.p00"}) is None
    assert histogram_of({**sent, "scores.q99": 1.0}) is None
    assert histogram_of({**sent, "scores.p00": -1.0}) is None
