"""What is learned in a simulation: real tasks in torch, or the quadratic surrogate. Both give the same few things."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from broker.weights import Layout
from deploy.simulation.site import Rounds

Vector = NDArray[np.float32]


class Learning(Protocol):
    """A model, the rows of N sites, and how good a model is."""

    @property
    def name(self) -> str:
        """The task's."""

    @property
    def layout(self) -> Layout:
        """The model's."""

    @property
    def initial(self) -> Vector:
        """Version 0."""

    @property
    def unique(self) -> Mapping[str, float]:
        """Of each site, how much of what it has it has alone."""

    @property
    def metric(self) -> str:
        """The leading one of `measures`."""

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
