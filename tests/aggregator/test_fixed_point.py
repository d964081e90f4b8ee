"""Whose optimum a strategy finds: ten quadratics F_i = 1/2 |x - c_i|^2 at sites of very different speed.

A site that has trained goes `step` of the way from its base to its own c_i. Bias is |mean of the last models - mean c|
over the spread of the c_i: 0 is the optimum of all, 1 as far off as a typical site's own.
"""

import heapq
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import pytest

from aggregator.fold import Fold, Vector
from aggregator.memory import Contribution
from aggregator.settings import Aggregation
from aggregator.strategies import Source
from tests.aggregator.folding import Deltas

SITES, SEEDS = 10, range(5)


@dataclass
class Race:
    """A federation without wire or clock: an event is the end of a site's round, which takes it `seconds`."""

    optima: Vector
    seconds: list[float]
    step: float
    aggregation: Aggregation
    gone: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.deltas, self.models, self._ordinal = Deltas(), list[Vector](), 0
        start = np.zeros(self.optima.shape[1], dtype=np.float32)
        self.fold = Fold.at(self.aggregation.build(), bytes(32), start, 0, self.deltas)
        self._trained = [-1] * SITES
        self._rounds: list[tuple[float, int, int, Vector]] = []

    def run(self, versions: int) -> None:
        """Until there are so many versions; a site trains at most once from each."""
        self._begin(0.0)
        while self.fold.version < versions:
            now, site, version, base = heapq.heappop(self._rounds)
            if site in self.gone:
                continue
            self._ordinal += 1
            delta = np.float32(self.step) * (self.optima[site] - base)
            self.deltas.vectors[Source("update", self._ordinal)] = delta
            self.fold.add(Contribution(str(site), self._ordinal, self.fold.version - version, 1, version))
            self._close()
            self._begin(now)

    def _close(self) -> None:
        contributed = {one.site for one in self.fold.buffer}
        present = {str(site) for site in range(SITES) if site not in self.gone}
        if len(contributed) >= self.fold.strategy.places_wanted(SITES) or contributed >= present:
            self.deltas.vectors[Source("version", self.fold.version)] = self.fold.model.copy()
            self.fold.step()
            self.models.append(self.fold.model.copy())

    def _begin(self, now: float) -> None:
        busy = {site for _, site, _, _ in self._rounds}
        for site in set(range(SITES)) - busy - self.gone:
            if self._trained[site] < self.fold.version:
                self._trained[site] = self.fold.version
                model = self.fold.model.copy()
                heapq.heappush(self._rounds, (now + self.seconds[site], site, self.fold.version, model))

    def bias(self) -> float:
        """Of the last hundred models, against the optimum of those who are there."""
        here = [site for site in range(SITES) if site not in self.gone]
        spread = np.sqrt(((self.optima - self.optima.mean(axis=0)) ** 2).sum(axis=1).mean())
        return float(np.linalg.norm(np.mean(self.models[-100:], axis=0) - self.optima[here].mean(axis=0)) / spread)


def race(seed: int, *, step: float = 0.5, alike: bool = False, **options: Any) -> Race:
    random = np.random.default_rng(seed)
    optima = random.normal(size=(SITES, 8)).astype(np.float32)
    seconds = [1.0] * SITES if alike else random.lognormal(0.0, 1.0, SITES).tolist()
    return Race(optima, seconds, step, Aggregation(weighting="equal", **options))


def biases(**options: Any) -> list[float]:
    races = [race(seed, **options) for seed in SEEDS]
    for one in races:
        one.run(300)
    return [one.bias() for one in races]


def test_the_default_finds_the_optimum_of_all_sites_slow_ones_too() -> None:
    assert median(biases()) <= 0.05


@pytest.mark.parametrize("staleness", ["constant", "polynomial"])
def test_fedbuff_leans_towards_the_fast_sites(staleness: str) -> None:
    assert median(biases(strategy="fedbuff", buffer_size=3, staleness=staleness)) >= 0.2


def test_when_a_site_leaves_for_good_the_default_finds_the_optimum_of_the_rest() -> None:
    found = []
    for seed in SEEDS:
        one = race(seed)
        one.run(150)
        one.gone = {int(np.argsort(one.seconds)[SITES // 2])}
        one.run(450)
        found.append(one.bias())
    assert median(found) <= 0.02


@pytest.mark.parametrize("alike", [True, False])
def test_the_default_is_steady_where_a_constant_rate_is_not(alike: bool) -> None:
    steady = race(0, step=0.9, alike=alike)
    steady.run(200)
    assert np.abs(steady.models).max() < 10
    if alike:
        wild = race(0, step=0.9, alike=True, strategy="ca2fl")
        wild.run(200)
        assert np.abs(wild.models).max() > 1e6
