"""Sums of sites' statistics are the pooled statistics."""

import numpy as np
import pytest

from broker.errors import WireError
from broker.statistics import FeatureStatistics

RNG = np.random.default_rng(3)
SITES = [RNG.normal(loc=[1.0, -50.0, 1e4], scale=[1.0, 5.0, 30.0], size=(rows, 3)) for rows in (1, 20, 300)]


def test_sums_equal_the_pooled_mean_and_std() -> None:
    summed = FeatureStatistics.summed(FeatureStatistics.of(rows) for rows in SITES)
    assert summed is not None
    pooled = np.concatenate(SITES)
    np.testing.assert_allclose(summed.mean, pooled.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(summed.std, pooled.std(axis=0), rtol=1e-9)


def test_by_hand_with_what_was_not_observed() -> None:
    nan = np.nan
    statistics = FeatureStatistics.of(np.array([[1.0, nan, nan], [3.0, 5.0, nan]], dtype=np.float32))
    assert statistics.to_lists() == [[2.0, 1.0, 0.0], [4.0, 5.0, 0.0], [10.0, 25.0, 0.0]]
    assert statistics.mean.tolist() == [2.0, 5.0, 0.0]
    assert statistics.std.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("value", [0.0, 37.3, 98.6, 1e6 + 0.1, -1e-3])
@pytest.mark.parametrize("rows", [1, 3, 1000, 100_000])
def test_a_constant_column_has_std_1(value: float, rows: int) -> None:
    """Also where the difference of the squares is not exactly 0: 37.3 a hundred thousand times left 8e-5."""
    parts = [FeatureStatistics.of(np.full((rows, 2), value)) for _ in range(3)]
    summed = FeatureStatistics.summed(parts)
    assert summed is not None
    assert summed.std.tolist() == [1.0, 1.0]


def test_a_narrow_column_keeps_its_std() -> None:
    rows = np.array([[2000.0, 1e-6], [2001.0, 3e-6]])
    np.testing.assert_allclose(FeatureStatistics.of(rows).std, [0.5, 1e-6], rtol=1e-6)


def test_no_site_has_no_statistics() -> None:
    assert FeatureStatistics.summed([]) is None


def test_mismatched_lengths() -> None:
    two, three = FeatureStatistics.of(np.ones((4, 2))), FeatureStatistics.of(np.ones((4, 3)))
    with pytest.raises(WireError, match="different numbers of features"):
        FeatureStatistics.summed([two, three])


def test_the_wire_round_trips() -> None:
    lists = [[2.0, 0.0], [4.0, 0.0], [10.0, 0.0]]
    assert FeatureStatistics.from_lists(lists).to_lists() == lists


@pytest.mark.parametrize(
    "lists",
    [
        [],
        [[1.0], [1.0]],
        [[1.0], [1.0], [1.0], [1.0]],
        [[1.0], [1.0, 2.0], [1.0]],
        [[-1.0], [1.0], [1.0]],
        [[1.0], [1.0], [-1.0]],
        [[1.0], [np.nan], [1.0]],
        [[np.inf], [1.0], [1.0]],
        [[1.0], [1.0], [1e101]],
    ],
)
def test_lists_that_are_no_statistics(lists: list[list[float]]) -> None:
    with pytest.raises(WireError, match="Feature statistics are not"):
        FeatureStatistics.from_lists(lists)
