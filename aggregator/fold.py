"""The model as a fold over accepted updates: the service folds as they come, a replay folds the journal.

Both run this code in the same order on the same numbers, so they end on the same bits. What is merged between two
versions are numbers alone (aggregator/memory.py); vectors are touched when a version is made, one decoded update at a
time, so memory is the model, the sum, the strategy's own vectors and one update, whatever the number of sites.

A sum that a strategy keeps (the remembered updates of all sites) is not added up anew for each version: only what
changes in it is decoded. Every REFRESHED versions it is made from nothing, so that rounding does not pile up.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from aggregator.memory import Contribution, Remembered, remember
from aggregator.state import NOTHING, State
from aggregator.strategies import Direction, Situation, Source, Strategy
from broker.weights import model_digest

Vector = NDArray[np.float32]
Chunks = Iterable[tuple[int, Vector]]
REFRESHED: Final = 64
KEPT: Final = "kept"
_STRIDE: Final = 1 << 16  # coordinates a step handles at once, so that model, sum and product stay in the cache


class Fetch(Protocol):
    """Where vectors come from: aggregator/sources.py. `models` are those of older versions that are at hand."""

    models: dict[int, Vector]

    def __call__(self, source: Source) -> Chunks:
        """The vector as (start, values) chunks, to be overwritten at will."""

    def hold(self, ordinal: int, codec: str, payload: bytes) -> None:
        """Take the newest accepted update, before it is journaled."""


@dataclass
class Fold:
    """A model of shape (n,), the contributions since its version, and the strategy that makes the next of them.

    `state` is what the strategy keeps besides the model, as of the version; `memory` are the sites' newest merged
    updates. Model and state are changed in place.
    """

    strategy: Strategy
    layout_digest: bytes
    model: Vector
    version: int
    digest: bytes
    fetch: Fetch
    memory: dict[str, Remembered] = field(default_factory=dict)
    state: State = NOTHING
    buffer: list[Contribution] = field(default_factory=list)

    @classmethod
    def at(cls, strategy: Strategy, layout_digest: bytes, model: Vector, version: int, fetch: Fetch) -> "Fold":
        """A fold that stands at `version` with an empty buffer and nothing remembered."""
        return cls(strategy, layout_digest, model, version, model_digest(layout_digest, model), fetch)

    def add(self, contribution: Contribution) -> None:
        """Merge an accepted update; its delta is fetched when the version is made."""
        self.buffer.append(contribution)

    def step(self) -> None:
        """Make the next version of what was merged; a buffer of nothing moves nothing."""
        version, former = self.version + 1, self.memory
        self.memory = remember(former, self.buffer, version=version)
        if self.buffer:
            situation = Situation(version, tuple(self.buffer), self.memory, former, self.state.used)
            self._move(self.strategy.direct(situation, self.strategy.worth), version)
        self.buffer = []
        self.version = version
        self.digest = model_digest(self.layout_digest, self.model)

    def _move(self, direction: Direction, version: int) -> None:
        vectors, held = self._opened(direction, version)
        changes = {
            source: direction.kept.terms.get(source, 0.0) - held.get(source, 0.0)
            for source in {**held, **direction.kept.terms}
        }
        once = np.zeros_like(self.model)
        self._add_up({source: value for source, value in changes.items() if value}, vectors, direction, once)
        optimizer, stalest = self.strategy.optimizer, max(one.staleness for one in self.buffer)
        rate = optimizer.rate(self.strategy.server_rate * direction.rate, stalest)
        self._walk(once, vectors, direction, rate)
        self.state = State(vectors, dict(direction.kept.terms), dict(direction.used)) if vectors else NOTHING

    def _opened(self, direction: Direction, version: int) -> tuple[dict[str, Vector], Mapping[Source, float]]:
        """The strategy's vectors, new ones as zeros, others dropped; and what its kept sum holds."""
        names = (*self.strategy.optimizer.vectors, *((KEPT,) if direction.kept.terms else ()))
        anew = {KEPT} if version % REFRESHED == 0 or KEPT not in self.state.vectors else set()
        vectors = {
            name: self.state.vectors[name]
            if name in self.state.vectors and name not in anew
            else np.zeros_like(self.model)
            for name in names
        }
        return vectors, {} if anew else self.state.held

    def _add_up(
        self, changes: Mapping[Source, float], vectors: Mapping[str, Vector], direction: Direction, once: Vector
    ) -> None:
        """Fetch each source once, in the journal's order, for both sums."""
        for source in sorted({*direction.once.terms, *changes}):
            into = [(once, direction.once.terms.get(source, 0.0))]
            into += [(vectors[KEPT], changes.get(source, 0.0))] if KEPT in vectors else []
            wanted = [(vector, np.float32(value)) for vector, value in into if value]
            for start, values in self._fetched(source) if wanted else ():
                for vector, factor in wanted[:-1]:
                    vector[start : start + len(values)] += values * factor
                vector, factor = wanted[-1]
                np.multiply(values, factor, out=values)
                vector[start : start + len(values)] += values

    def _fetched(self, source: Source) -> Chunks:
        current = source == Source("version", self.version)
        return [(0, self.model.copy())] if current else self.fetch(source)

    def _walk(self, once: Vector, vectors: Mapping[str, Vector], direction: Direction, rate: float) -> None:
        """model += rate * optimizer(once / divisor + kept / divisor), a stretch at a time."""
        optimizer = self.strategy.optimizer
        plain = not optimizer.vectors
        scale = rate if plain else 1.0
        for start in range(0, len(self.model), _STRIDE):
            place = slice(start, start + _STRIDE)
            part = once[place]
            part *= np.float32(scale / direction.once.divisor)
            if KEPT in vectors:
                part += vectors[KEPT][place] * np.float32(scale / direction.kept.divisor)
            if not plain:
                optimizer.turn(part, {name: vectors[name][place] for name in optimizer.vectors})
                part *= np.float32(rate)
            self.model[place] += part
