"""Feature statistics that can be added: what sites send so that all of them scale alike, without sending a row.

On four real hospitals scaling each with its own mean cost 7 points of accuracy, because prevalence lives in the means.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from broker.errors import WireError

Vector = NDArray[np.float64]
LARGEST: Final = 1e100  # a sum over sites stays finite; one that is not would make the announcement invalid for all


@dataclass(frozen=True)
class FeatureStatistics:
    """Per feature: observed values, their sum, the sum of their squares; each of shape (features,), float64."""

    count: Vector
    total: Vector
    squares: Vector

    @classmethod
    def of(cls, rows: NDArray[np.floating]) -> "FeatureStatistics":
        """Statistics of `rows`, shape (n, features); NaN means not observed."""
        seen = ~np.isnan(rows)
        values = np.where(seen, rows, 0.0).astype(np.float64)
        return cls(seen.sum(axis=0).astype(np.float64), _column_sums(values), _column_sums(np.square(values)))

    @classmethod
    def summed(cls, parts: Iterable["FeatureStatistics"]) -> "FeatureStatistics | None":
        """The sum over sites, None if there are none."""
        several = list(parts)
        if not several:
            return None
        if len({len(part.count) for part in several}) > 1:
            raise WireError("Sites sent statistics of different numbers of features.")
        return cls(
            np.sum([part.count for part in several], axis=0),
            np.sum([part.total for part in several], axis=0),
            np.sum([part.squares for part in several], axis=0),
        )

    @classmethod
    def from_lists(cls, lists: list[list[float]]) -> "FeatureStatistics":
        """From the wire: three lists of one length; else WireError."""
        if len(lists) != 3 or len({len(one) for one in lists}) != 1:
            raise WireError("Feature statistics are not three lists of one length.")
        count, total, squares = (np.asarray(one, dtype=np.float64) for one in lists)
        bounded = all((np.abs(one) <= LARGEST).all() for one in (count, total, squares))  # NaN is not
        if not bounded or (count < 0).any() or (squares < 0).any():
            raise WireError("Feature statistics are not finite, absurdly large, or have a negative count or square.")
        return cls(count, total, squares)

    def to_lists(self) -> list[list[float]]:
        """For the wire."""
        return [self.count.tolist(), self.total.tolist(), self.squares.tolist()]

    @property
    def mean(self) -> Vector:
        """Mean of the observed values, 0 where none was observed."""
        return self.total / np.maximum(self.count, 1.0)

    @property
    def std(self) -> Vector:
        """Population standard deviation, 1 where it is 0 or nothing was observed, so that one may divide by it.

        Below a millionth of the mean it is rounding: the difference of two large numbers that should be equal.
        """
        variance = self.squares / np.maximum(self.count, 1.0) - np.square(self.mean)
        spread = np.sqrt(np.maximum(variance, 0.0))
        return np.where(spread > np.maximum(1e-9, 1e-6 * np.abs(self.mean)), spread, 1.0)


def _column_sums(values: Vector) -> Vector:
    """Sums over rows, each along contiguous memory: numpy then adds pairwise, which keeps rounding to a few bits."""
    sums: Vector = np.ascontiguousarray(values.T).sum(axis=1)
    return sums
