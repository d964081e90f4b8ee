"""How updates become the next version: pure functions of a buffer and a model, in a literal table.

A site sends delta_i = trained_i - base_i. A strategy folds deltas into a buffer one by one and, when asked, steps the
model. It never sees a base model, so a stale site that learned nothing moves nothing. All arithmetic is elementwise
float32 in arrival order: folding the journal again gives the same bits.

Buffers and models may be changed in place; a caller that needs the old value copies it first.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from aggregator.staleness import Discount
from broker.errors import UsageError

Vector = NDArray[np.float32]
Chunks = Iterable[tuple[int, Vector]]
Weighting = Literal["examples", "equal"]
_STRIDE: Final = 1 << 16  # coordinates a step handles at once, so that model, sum and product stay in the cache


@dataclass(frozen=True)
class Contribution:
    """What a strategy may know of an update besides its delta."""

    site: str
    staleness: int
    examples: int


@dataclass
class Buffer:
    """Deltas merged since the last version: `total` is their weighted sum, shape (n,); `shares` the divisor."""

    total: Vector
    shares: float = 0.0
    count: int = 0

    @classmethod
    def empty(cls, size: int) -> "Buffer":
        """A buffer of nothing."""
        return cls(np.zeros(size, dtype=np.float32))


@dataclass(frozen=True)
class Strategy:
    """x <- x + server_rate * sum_i(share_i s(tau_i) delta_i) / sum_i(share_i) over every `buffer_size` updates."""

    buffer_size: int
    server_rate: float
    discount: Discount
    share: Callable[[Contribution], float]

    def merge(self, buffer: Buffer, contribution: Contribution, chunks: Chunks) -> Buffer:
        """Fold one delta, given as (start, values) chunks, into the buffer."""
        share = self.share(contribution)
        factor = np.float32(share * self.discount(contribution.staleness))
        for start, values in chunks:
            np.multiply(values, factor, out=values)
            buffer.total[start : start + len(values)] += values
        buffer.shares += share
        buffer.count += 1
        return buffer

    def step(self, model: Vector, buffer: Buffer) -> tuple[Vector, Buffer]:
        """The next model and an empty buffer; an empty buffer moves nothing."""
        if buffer.count:
            factor = np.float32(self.server_rate / buffer.shares)
            for start in range(0, len(model), _STRIDE):
                part = buffer.total[start : start + _STRIDE]
                part *= factor
                model[start : start + _STRIDE] += part
        buffer.total.fill(0)
        buffer.shares, buffer.count = 0.0, 0
        return model, buffer


_SHARES: Final[dict[str, Callable[[Contribution], float]]] = {
    "examples": lambda contribution: float(contribution.examples),
    "equal": lambda _contribution: 1.0,
}


def fedbuff(
    *, discount: Discount, buffer_size: int = 3, server_rate: float = 1.0, weighting: Weighting = "examples"
) -> Strategy:
    """FedBuff (Nguyen et al. 2022, algorithm 1): every K updates x += eta * sum p_i s(tau_i) delta_i.

    With everybody fresh and K the number of sites this is FedAvg (McMahan et al. 2017). State: one accumulator.
    """
    if buffer_size < 1:
        raise UsageError(f"buffer_size is {buffer_size}, but a buffer holds at least one update.")
    if weighting not in _SHARES:
        raise UsageError(f"There is no weighting {weighting!r}; choose one of {', '.join(_SHARES)}.")
    return Strategy(buffer_size, server_rate, discount, _SHARES[weighting])


def fedasync(*, discount: Discount, server_rate: float = 0.6) -> Strategy:
    """FedAsync on deltas: x += alpha s(tau) delta for each update (alpha is `server_rate`; rule of Xie et al. 2019).

    The paper mixes whole models, which pulls others' progress back when the base is stale; the delta form does not.
    """
    return Strategy(1, server_rate, discount, _SHARES["equal"])


STRATEGIES: Final[dict[str, Callable[..., Strategy]]] = {"fedbuff": fedbuff, "fedasync": fedasync}


def strategy_named(name: str, *, discount: Discount, **options: object) -> Strategy:
    """The strategy called `name` with its options; UsageError names the choices."""
    if name not in STRATEGIES:
        raise UsageError(f"There is no strategy {name!r}; choose one of {', '.join(STRATEGIES)}.")
    try:
        return STRATEGIES[name](discount=discount, **options)
    except TypeError as error:
        raise UsageError(f"Strategy {name!r} has no such option among {', '.join(options)}.") from error
