"""The quadratic surrogate: F_i(x) = 1/2 |x - c_i|^2 at site i, and what is wanted is the mean of all c_i.

Gradient descent on it has a closed form: n steps of rate r move x by (1 - (1 - r)^n) of the way to c_i. It costs
nothing, and a bias towards the fast sites shows at once: "error" is |x - mean c| over the spread of the c_i, so 1 is
the distance of a typical site's own optimum. Plan, codec, residual and wire are the real ones.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from broker.messages import Announcement, Hello
from broker.weights import Layout
from site_worker.choosing import choose
from site_worker.compression import compress
from site_worker.draft import Draft
from site_worker.effects import Trained
from site_worker.outbox import Made
from site_worker.plan import Plan
from site_worker.training import TrainingError

Vector = NDArray[np.float32]
NAME = "surrogate"
EXAMPLES = 100


@dataclass(frozen=True)
class SurrogateRounds:
    """The rounds of one site, whose optimum is `optimum`."""

    layout: Layout
    optimum: Vector
    task_name: str = NAME

    def greeting(self) -> Hello:
        """As from LocalRounds."""
        return Hello(NAME, bytes(16), 1, 0, 0, self.layout.digest, EXAMPLES, [], False)

    def forget(self) -> None:
        """Nothing is kept."""

    def run(
        self,
        announcement: Announcement,
        model: Vector | None,
        draft: Draft,
        stopping: threading.Event,  # noqa: ARG002 - it is done at once
    ) -> Trained:
        """As from LocalRounds."""
        if model is None:
            raise TrainingError(f"Nothing of the round of version {announcement.version} is kept.")
        plan, codec = Plan.from_numbers(dict(announcement.plan)), announcement.codec
        away = self.optimum - model
        loss = float(np.dot(away, away)) / 2
        away = away * np.float32(_part_of_the_way(plan))
        form = self.layout.form

        def delta(start: int, stop: int) -> Vector:
            return away[start:stop].copy()

        written = compress(choose(codec, delta, form, draft.past, private=False), delta, form, draft)
        draft.close()
        made = Made(
            0, announcement.version, announcement.model_digest, EXAMPLES, plan.steps, 1, (("loss", loss),),
            written.codec, draft.payload_digest, 0.0, 0.0, draft.payload_bytes, written.error, written.choice,
            written.backlog,
        )  # fmt: skip
        return Trained(made)


def _part_of_the_way(plan: Plan) -> float:
    """How much of the way from base to optimum a round goes: the proximal term pulls back to the base at every step."""
    left, pull = 1.0, 1 + plan.proximal
    for number in range(1, plan.steps + 1):
        left *= 1 - plan.rate(number) * pull
    return (1 - left) / pull


@dataclass(frozen=True)
class Surrogate:
    """A Learning of quadratics. The optima lie about `spread` from their mean, and it three times as far."""

    names: Sequence[str]
    layout: Layout
    optima: NDArray[np.float32]
    name: str = NAME
    metric: str = "error"
    unique: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def drawn(cls, names: Sequence[str], dimensions: int, *, spread: float, seed: int) -> "Surrogate":
        """Optima that follow from the seed."""
        random = np.random.default_rng([seed, 17])
        centre = random.normal(size=dimensions)
        centre *= 3 * spread / np.linalg.norm(centre)
        optima = centre + random.normal(size=(len(names), dimensions)) * spread / np.sqrt(dimensions)
        layout = Layout.of({"x": np.zeros(dimensions, dtype=np.float32)})
        mean = optima.mean(axis=0)
        far = np.linalg.norm(optima - mean, axis=1)
        unique = {name: float(one) for name, one in zip(names, far, strict=True)}
        return cls(names, layout, optima.astype(np.float32), unique=unique)

    @property
    def initial(self) -> Vector:
        """The origin."""
        return np.zeros(self.layout.size, dtype=np.float32)

    def rounds(self, site: str) -> SurrogateRounds:
        """See `Learning`."""
        return SurrogateRounds(self.layout, self.optima[self.names.index(site)])

    def measures(self, model: Vector) -> dict[str, float]:
        """See `Learning`."""
        mean = self.optima.mean(axis=0)
        return {"error": float(np.linalg.norm(model - mean)) / self._spread()}

    def own(self, model: Vector) -> dict[str, float]:
        """Each site's distance from its own optimum, over the spread."""
        far = np.linalg.norm(self.optima - model, axis=1) / self._spread()
        return {name: float(one) for name, one in zip(self.names, far, strict=True)}

    def of_site(self, model: Vector, site: str) -> float | None:
        """See `Learning`."""
        return float(np.linalg.norm(self.optima[self.names.index(site)] - model)) / self._spread()

    def use_statistics(self, statistics: list[list[float]]) -> None:
        """There are none."""

    def _spread(self) -> float:
        """Root mean square of the optima's distances from their mean; 1 if there is one site alone."""
        apart = self.optima - self.optima.mean(axis=0)
        return float(np.sqrt(np.mean(np.sum(apart * apart, axis=1)))) or 1.0
