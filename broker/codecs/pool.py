"""Which components of all matrices are sent: those that hold most for their bits, until the bits are spent.

One budget for all gives it to the layers that moved most. A component that alone is over the budget is still sent when
it is the best of all, or what is in it would never go: with error feedback every other comes to be the best in time.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from broker.codecs.factors import BITS, Components
from broker.codecs.forms import Shape
from broker.codecs.lowrank import Matrix

_COLUMN_BITS: Final = 8  # a component's exponent
_SLACK: Final = 2  # how many budgets are kept before what is over is thrown away


def bits(shape: Shape) -> float:
    """What a component of a matrix takes."""
    return BITS * sum(shape) + _COLUMN_BITS


@dataclass(frozen=True)
class _Ranking:
    """All components from the best on: the segment of each, and its bits."""

    numbers: NDArray[np.intp]
    costs: NDArray[np.float64]


class Pool:
    """Components of matrices, by the numbers of their segments. Memory is that of a few budgets."""

    def __init__(self, budget: float) -> None:
        self._budget, self._held = budget, 0.0
        self._candidates: dict[int, tuple[float, Components]] = {}

    def add(self, number: int, shape: Shape, found: Components) -> None:
        """What was found in one matrix."""
        cost = bits(shape)
        self._candidates[number] = cost, found
        self._held += cost * len(found.energies)
        if self._held > _SLACK * self._budget:
            self._throw_away()

    def chosen(self) -> dict[int, Matrix]:
        """The bases of what is sent of each segment, at least one component of all if there is any."""
        ranking, spent = self._ranking(), 0.0
        ranks = dict.fromkeys(self._candidates, 0)
        for number, cost in zip(ranking.numbers.tolist(), ranking.costs.tolist(), strict=True):
            if not spent or spent + cost <= self._budget:
                spent += cost
                ranks[number] += 1
        return {number: self._candidates[number][1].basis[:rank] for number, rank in ranks.items() if rank}

    def _ranking(self) -> _Ranking:
        """Components of one matrix stay in their order, since they cost the same."""
        held = self._candidates.items()
        counts = [len(found.energies) for _, (_, found) in held]
        numbers = np.repeat(np.array([number for number, _ in held], dtype=np.intp), counts)
        costs = np.repeat(np.array([cost for _, (cost, _) in held], dtype=np.float64), counts)
        energies = np.concatenate([np.zeros(0), *(found.energies for _, (_, found) in held)])
        order = np.argsort(-energies / costs, kind="stable")
        return _Ranking(numbers[order], costs[order])

    def _throw_away(self) -> None:
        """Drop what comes after as much as the budget can take."""
        ranking = self._ranking()
        within = np.cumsum(ranking.costs) - ranking.costs < self._budget
        numbers, ranks = np.unique(ranking.numbers[within], return_counts=True)
        kept = {}
        for number, rank in zip(numbers.tolist(), ranks.tolist(), strict=True):
            cost, found = self._candidates[number]
            kept[number] = cost, Components(found.energies[:rank], found.basis[:rank].copy())
        self._candidates = kept
        self._held = float(ranking.costs[within].sum())
