"""Rows of a table as what a model sees: scaled numbers, indicators of missing ones, declared categories as 0 and 1.

All sites have the same features in the same order, since they follow from the declaration alone. A number is scaled by
the federation's mean and standard deviation; one that is not known is the mean, which is 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from broker.errors import UsageError
from broker.statistics import FeatureStatistics
from site_worker.tabular.declaration import Declaration
from site_worker.tabular.table import Table

Rows = NDArray[np.intp]
Singles = NDArray[np.float32]


@dataclass(frozen=True)
class Features:
    """Columns in the order of the features: `numbers`, `indicators` of some of them, `categories` with their width."""

    numbers: tuple[str, ...]
    indicators: tuple[str, ...]
    categories: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, declaration: Declaration) -> Self:
        """The features that a declaration makes."""
        columns = declaration.features.items()
        return cls(
            numbers=tuple(name for name, column in columns if column.role == "number"),
            indicators=tuple(name for name, column in columns if column.indicator),
            categories=tuple(
                (name, len(column.categories) + column.other) for name, column in columns if column.role == "category"
            ),
        )

    @property
    def width(self) -> int:
        """How many there are."""
        return len(self.numbers) + len(self.indicators) + sum(width for _, width in self.categories)

    def statistics(self, table: Table, rows: Rows) -> FeatureStatistics:
        """Sums over `rows` of the numbers, column by column so that no second table is held."""
        columns = [FeatureStatistics.of(table.numbers[name][rows][:, None]) for name in self.numbers]
        return FeatureStatistics(
            np.concatenate([one.count for one in columns]),
            np.concatenate([one.total for one in columns]),
            np.concatenate([one.squares for one in columns]),
        )

    def fill(self, out: Singles, table: Table, rows: Rows, scale: FeatureStatistics | None) -> None:
        """Write the features of `rows` into `out`, shape (rows, width); `scale` is of the numbers, None without any."""
        if scale is not None and len(scale.count) != len(self.numbers):
            raise UsageError(
                f"The federation's statistics are of {len(scale.count)} columns, this declaration has "
                f"{len(self.numbers)} numbers; ask the coordinator for the federation.toml in use."
            )
        for place, feature in enumerate(self._each(table, rows, scale)):
            out[:, place] = feature

    def _each(self, table: Table, rows: Rows, scale: FeatureStatistics | None) -> Iterator[NDArray[np.generic]]:
        for place, name in enumerate(self.numbers):
            assert scale is not None
            yield np.nan_to_num((table.numbers[name][rows] - scale.mean[place]) / scale.std[place])
        for name in self.indicators:
            yield np.isnan(table.numbers[name][rows])
        for name, width in self.categories:
            codes = table.codes[name][rows]
            yield from (codes == place for place in range(width))


def held_out(classes: NDArray[np.floating], share: float, seed: int) -> NDArray[np.bool_]:
    """Which rows are held out: `share` of those of each class (0 and 1), but never all of a class.

    `classes` has shape (rows,). The same rows for the same seed and the same classes in the same order.
    """
    random = np.random.default_rng(seed)
    chosen = np.zeros(len(classes), dtype=np.bool_)
    for one in (0.0, 1.0):
        rows = random.permutation(np.flatnonzero(classes == one))
        chosen[rows[: min(round(share * len(rows)), len(rows) - 1)]] = True
    return chosen
