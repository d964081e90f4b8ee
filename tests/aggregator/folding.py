"""A fold over literal deltas: each goes into the buffer with who sent it, and comes out by its ordinal."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from aggregator.fold import Chunk, Fold, Vector
from aggregator.memory import Contribution
from aggregator.settings import Aggregation
from aggregator.strategies import Source
from broker.codecs import Dense
from tests.aggregator.bench import floats


class Deltas:
    """Gives what was put in, in two chunks a stretch, and notes what was fetched."""

    def __init__(self) -> None:
        self.vectors: dict[Source, Vector] = {}
        self.fetched: list[Source] = []
        self.models: dict[int, Vector] = {}

    def over(self) -> None:
        pass

    def __call__(self, source: Source, start: int, stop: int) -> Iterator[Chunk]:
        self.fetched.append(source)
        vector, middle = self.vectors[source], (start + stop) // 2
        for first, last in ((middle, stop), (start, middle)):
            yield first, partial(Dense, vector[first:last].copy())


class Folding:
    """A fold that starts at `model` and an easy way to feed it."""

    def __init__(self, model: Vector, aggregation: Aggregation) -> None:
        self.deltas = Deltas()
        self.fold = Fold.at(aggregation.build(), bytes(32), model.copy(), 0, self.deltas)
        self._ordinal = 0

    def add(self, site: str, *delta: float, tau: int = 0, examples: int = 1) -> "Folding":
        self._ordinal += 1
        self.deltas.vectors[Source("update", self._ordinal)] = floats(*delta)
        base = self.fold.version - tau
        self.fold.add(Contribution(site, self._ordinal, tau, examples, base))
        return self

    def step(self) -> list[float]:
        """The next version."""
        self.deltas.vectors[Source("version", self.fold.version)] = self.fold.model.copy()
        self.deltas.fetched.clear()
        self.fold.step()
        return [float(one) for one in self.fold.model]


def folding(*model: float, **options: Any) -> Folding:
    """From `model`, by an aggregation with these options, equal weights and no discount unless they say otherwise."""
    plain: dict[str, Any] = {"strategy": "fedbuff", "weighting": "equal", "staleness": "constant", "server_rate": 1.0}
    return Folding(np.array(model, dtype=np.float32), Aggregation(**(plain | options)))
