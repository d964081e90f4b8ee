"""Server optimizers: what becomes of the direction that a strategy gives, before it moves the model.

All work elementwise on float32, in place, a stretch of coordinates at a time, so that a journal folded again gives the
same bits. The vectors they keep (one to three of the model's size) are saved beside each snapshot.

They matter where coordinates differ much in scale, and they are sensitive to tuning: with `none`, the default, a
direction is a step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from broker.errors import UsageError

Vector = NDArray[np.float32]
Vectors = Mapping[str, Vector]


@dataclass(frozen=True)
class ServerOptimizer:
    """`turn(direction, vectors)` overwrites a stretch of the direction with the step for it, and of its `vectors`.

    `rate(server_rate, staleness)` is the rate of a step whose stalest update has `staleness`.
    """

    vectors: tuple[str, ...]
    turn: Callable[[Vector, Vectors], None]
    rate: Callable[[float, int], float] = lambda server_rate, _staleness: server_rate


def none() -> ServerOptimizer:
    """The direction as it is."""
    return ServerOptimizer((), lambda _direction, _vectors: None)


def momentum(beta1: float = 0.9) -> ServerOptimizer:
    """FedAvgM (Hsu et al. 2019, section 4.3): m = beta1 m + d, step m. State: m."""

    def turn(direction: Vector, vectors: Vectors) -> None:
        moment = vectors["moment"]
        moment *= np.float32(beta1)
        moment += direction
        direction[:] = moment

    return ServerOptimizer(("moment",), turn)


def fedadam(beta1: float = 0.9, beta2: float = 0.99, epsilon: float = 1e-3) -> ServerOptimizer:
    """FedAdam (Reddi et al. 2021, algorithm 2): m = b1 m + (1 - b1) d, v = b2 v + (1 - b2) d^2, step m / (sqrt v + e).

    State: m and v. Rates are far smaller than without it: 0.01 to 0.1.
    """

    def turn(direction: Vector, vectors: Vectors) -> None:
        _average(vectors["moment"], direction, beta1)
        _average(vectors["second"], direction * direction, beta2)
        _adaptive(direction, vectors["moment"], vectors["second"], epsilon)

    return ServerOptimizer(("moment", "second"), turn)


def fedyogi(beta1: float = 0.9, beta2: float = 0.99, epsilon: float = 1e-3) -> ServerOptimizer:
    """FedYogi (Reddi et al. 2021, algorithm 2): as FedAdam with v = v - (1 - b2) d^2 sign(v - d^2). State: m and v."""

    def turn(direction: Vector, vectors: Vectors) -> None:
        second, square = vectors["second"], direction * direction
        _average(vectors["moment"], direction, beta1)
        second -= np.float32(1 - beta2) * square * np.sign(second - square)
        _adaptive(direction, vectors["moment"], second, epsilon)

    return ServerOptimizer(("moment", "second"), turn)


def fadas(beta1: float = 0.9, beta2: float = 0.99, epsilon: float = 1e-3, most: int = 5) -> ServerOptimizer:
    """FADAS (Wang et al. 2024, with its delay-adaptive rate): AMSGrad on the buffered mean.

    m and v as in FedAdam, v^ = max(v^, v), step m / (sqrt v^ + e); the rate falls to min(rate, 1 / tau) where the
    stalest update's tau is above `most`. State: m, v and v^.
    """

    def turn(direction: Vector, vectors: Vectors) -> None:
        _average(vectors["moment"], direction, beta1)
        _average(vectors["second"], direction * direction, beta2)
        np.maximum(vectors["largest"], vectors["second"], out=vectors["largest"])
        _adaptive(direction, vectors["moment"], vectors["largest"], epsilon)

    def rate(server_rate: float, staleness: int) -> float:
        return server_rate if staleness <= most else min(server_rate, 1.0 / staleness)

    return ServerOptimizer(("moment", "second", "largest"), turn, rate)


OPTIMIZERS: Final[dict[str, Callable[..., ServerOptimizer]]] = {
    "none": none,
    "momentum": momentum,
    "fedadam": fedadam,
    "fedyogi": fedyogi,
    "fadas": fadas,
}


def optimizer_named(name: str, **options: float) -> ServerOptimizer:
    """The server optimizer called `name` with its options; UsageError names the choices."""
    if name not in OPTIMIZERS:
        raise UsageError(f"There is no server optimizer {name!r}; choose one of {', '.join(OPTIMIZERS)}.")
    return OPTIMIZERS[name](**options)


def _average(average: Vector, value: Vector, beta: float) -> None:
    average *= np.float32(beta)
    average += np.float32(1 - beta) * value


def _adaptive(direction: Vector, moment: Vector, second: Vector, epsilon: float) -> None:
    np.divide(moment, np.sqrt(second) + np.float32(epsilon), out=direction)
