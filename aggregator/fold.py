"""The model as a fold over accepted updates: the service folds as they come, a replay folds the journal.

Both run this code in the same order on the same numbers, so they end on the same bits. What is merged between two
versions are numbers alone (aggregator/memory.py). So a version is made in two steps: `decide` fixes its coefficients at
once, and `move`, which may take seconds and runs beside the service's loop, applies them to the vectors: one decoded
update at a time and stretch by stretch, so memory is the model, the strategy's own vectors, the sum of one stretch and
a few chunks, whatever the number of sites. Chunks of a stretch are added side by side; which coordinate gets what, and
in which order, is the same for any number of threads and any length of a stretch, and so are the bits.

A sum that a strategy keeps (the remembered updates of all sites) is not added up anew for each version: only what
changes in it is decoded. Every REFRESHED versions it is made from nothing, so that rounding does not pile up.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from aggregator.memory import Contribution, Remembered, remember
from aggregator.optimizers import ServerOptimizer
from aggregator.sidebyside import each
from aggregator.state import NOTHING, State
from aggregator.strategies import Direction, Situation, Source, Strategy
from broker.codecs import CHUNK, Dense, Form, Piece
from broker.weights import model_digest

Vector = NDArray[np.float32]
Chunk = tuple[int, Callable[[], Piece]]  # where it starts, and how to decode it
REFRESHED: Final = 64
KEPT: Final = "kept"
STRETCH: Final = 1 << 24  # coordinates, a multiple of a chunk; a codec's matrices may lie across its border
_STRIDE: Final = 1 << 16  # coordinates a step handles at once, so that model, sum and product stay in the cache


class Fetch(Protocol):
    """Where vectors come from: aggregator/sources.py. `models` are those of older versions that are at hand."""

    models: dict[int, Vector]

    def __call__(self, source: Source, start: int, stop: int) -> Iterable[Chunk]:
        """The vector's stretch in chunks, each to be overwritten at will; a source's stretches come in order."""

    def over(self) -> None:
        """Nothing more is asked of the sources of a version."""


@dataclass(frozen=True)
class Step:
    """A version that was decided on: by which strategy, how far along what, and what is still to be done to vectors.

    `direction` is None where nothing was merged; `stalest` is the largest staleness in the buffer.
    """

    version: int
    strategy: Strategy
    direction: Direction | None
    stalest: int = 0


@dataclass
class Fold:
    """A model of shape (n,), the contributions since its version, and the strategy that makes the next of them.

    `form` is that of the model's tensors, which a fold never looks at, but codecs do. `version` is the newest that was
    decided on; while it is `moving`, `digest` is that of the one before. `state` is what the strategy keeps besides the
    model; `memory` are the sites' newest merged updates. `saved` is the newest version with a snapshot. Model and state
    are changed in place, by `move` alone: between `decide` and `settle` they belong to it, all else to the caller.
    """

    strategy: Strategy
    layout_digest: bytes
    form: Form
    model: Vector
    version: int
    digest: bytes
    fetch: Fetch
    memory: dict[str, Remembered] = field(default_factory=dict)
    state: State = NOTHING
    buffer: list[Contribution] = field(default_factory=list)
    moving: bool = False
    saved: int = 0

    @classmethod
    def at(
        cls,
        strategy: Strategy,
        layout_digest: bytes,
        model: Vector,
        version: int,
        fetch: Fetch,
        *,
        form: Form | None = None,
    ) -> "Fold":
        """A fold that stands at `version` with an empty buffer and nothing remembered; of one vector without `form`."""
        form = Form.of(len(model)) if form is None else form
        return cls(strategy, layout_digest, form, model, version, model_digest(layout_digest, model), fetch)

    @property
    def made(self) -> int:
        """The newest version whose vectors are there."""
        return self.version - self.moving

    def add(self, contribution: Contribution) -> None:
        """Merge an accepted update; its delta is fetched when the version is made."""
        self.buffer.append(contribution)

    def decide(self) -> Step:
        """The next version, of what was merged; a buffer of nothing moves nothing. Not while one is `moving`."""
        assert not self.moving
        buffer, former = tuple(self.buffer), self.memory
        self.version, self.buffer, self.moving = self.version + 1, [], True
        self.memory = remember(former, buffer, version=self.version)
        if not buffer:
            return Step(self.version, self.strategy, None)
        situation = Situation(self.version, buffer, self.memory, former, self.state.used)
        direction = self.strategy.direct(situation, self.strategy.worth)
        return Step(self.version, self.strategy, direction, max(one.staleness for one in buffer))

    def move(self, step: Step) -> bytes:
        """Do to the vectors what was decided; the new model's digest. In any thread, which alone uses them then."""
        if step.direction is not None:
            self._move(step, step.direction)
        return model_digest(self.layout_digest, self.model)

    def settle(self, digest: bytes) -> None:
        """The vectors of the version that was decided on are there."""
        self.moving, self.digest = False, digest

    def step(self) -> None:
        """Make the next version, all at once."""
        self.settle(self.move(self.decide()))

    def _move(self, step: Step, direction: Direction) -> None:
        vectors, held = self._opened(step, direction)
        changes = {
            source: direction.kept.terms.get(source, 0.0) - held.get(source, 0.0)
            for source in {**held, **direction.kept.terms}
        }
        changes = {source: value for source, value in changes.items() if value}
        rate = step.strategy.optimizer.rate(step.strategy.server_rate * direction.rate, step.stalest)
        for start in range(0, len(self.model), STRETCH):
            place = slice(start, min(start + STRETCH, len(self.model)))
            once = np.zeros(place.stop - place.start, dtype=np.float32)
            stretch = {name: vector[place] for name, vector in vectors.items()}
            self._add_up(step, direction, changes, (once, stretch), place)
            optimizer = step.strategy.optimizer
            _walk(self.model[place], once, stretch, direction=direction, optimizer=optimizer, rate=rate)
        self.fetch.over()
        self.state = State(vectors, dict(direction.kept.terms), dict(direction.used)) if vectors else NOTHING

    def _opened(self, step: Step, direction: Direction) -> tuple[dict[str, Vector], Mapping[Source, float]]:
        """The strategy's vectors, new ones as zeros, others dropped; and what its kept sum holds."""
        names = (*step.strategy.optimizer.vectors, *((KEPT,) if direction.kept.terms else ()))
        anew = step.version % REFRESHED == 0 or KEPT not in self.state.vectors
        vectors = {
            name: self.state.vectors[name] if name in self.state.vectors else np.zeros_like(self.model)
            for name in names
        }
        if anew and KEPT in vectors:
            vectors[KEPT].fill(0)
        return vectors, {} if anew else self.state.held

    def _add_up(
        self,
        step: Step,
        direction: Direction,
        changes: Mapping[Source, float],
        sums: tuple[Vector, Mapping[str, Vector]],
        place: slice,
    ) -> None:
        """Fetch each source once, in the journal's order, for both sums; all vectors are of the stretch alone."""
        once, vectors = sums
        for source in sorted({*direction.once.terms, *changes}):
            into = [(once, direction.once.terms.get(source, 0.0))]
            into += [(vectors[KEPT], changes.get(source, 0.0))] if KEPT in vectors else []
            wanted = [(vector, value) for vector, value in into if value]
            if wanted:
                each(partial(_add, wanted, place.start), self._fetched(source, place, step.version - 1))

    def _fetched(self, source: Source, place: slice, current: int) -> Iterable[Chunk]:
        if source == Source("version", current):
            return [(place.start, partial(Dense, self.model[place].copy()))]
        return self.fetch(source, place.start, place.stop)


def _walk(
    model: Vector,
    once: Vector,
    vectors: Mapping[str, Vector],
    *,
    direction: Direction,
    optimizer: ServerOptimizer,
    rate: float,
) -> None:
    """model += rate * optimizer(once / divisor + kept / divisor), as much at a time as stays in the cache."""
    plain = not optimizer.vectors
    scale = rate if plain else 1.0

    def walk(first: int) -> None:
        for start in range(first, min(first + CHUNK, len(model)), _STRIDE):
            place = slice(start, start + _STRIDE)
            part = once[place]
            part *= np.float32(scale / direction.once.divisor)
            if KEPT in vectors:
                part += vectors[KEPT][place] * np.float32(scale / direction.kept.divisor)
            if not plain:
                optimizer.turn(part, {name: vectors[name][place] for name in optimizer.vectors})
                part *= np.float32(rate)
            model[place] += part

    each(walk, range(0, len(model), CHUNK))


def _add(wanted: list[tuple[Vector, float]], first: int, chunk: Chunk) -> None:
    """Add one chunk to vectors that begin at coordinate `first`."""
    start, opened = chunk[0] - first, chunk[1]()
    for vector, factor in wanted:
        opened.add_to(vector[start : start + opened.count], factor)
