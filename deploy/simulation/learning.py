"""What is learned in a simulation: real tasks in torch, or the quadratic surrogate. Both give the same few things."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from broker.weights import Layout
from deploy.simulation.site import Rounds

Vector = NDArray[np.float32]
LOW_IS_GOOD = ("loss", "error", "brier", "calibration")


class Learning(Protocol):
    """A model, N sites' rows, and how good a model is. `unique` says of each site how much of its rows are its alone."""

    name: str
    layout: Layout
    initial: Vector
    names: Sequence[str]
    unique: Mapping[str, float]
    metric: str

    def rounds(self, site: str) -> Rounds:
        """The training at one site."""

    def measures(self, model: Vector) -> dict[str, float]:
        """Of a model, on what all want of it."""

    def own(self, model: Vector) -> dict[str, float]:
        """The leading metric of a model at each site, on rows that the site has kept for that."""

    def of_site(self, model: Vector, site: str) -> float | None:
        """The leading metric on the classes of which this site has the most; None if there are no classes."""

    def use_statistics(self, statistics: list[list[float]]) -> None:
        """The federation's feature statistics, once they are fixed."""


def is_better(metric: str, value: float, than: float) -> bool:
    """Whether a value of a metric is at least as good as another."""
    return value <= than if low_is_good(metric) else value >= than


def low_is_good(metric: str) -> bool:
    """Whether a metric counts mistakes."""
    return metric in LOW_IS_GOOD
