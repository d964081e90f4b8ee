"""A plan: how a site trains for one round, read from the numbers of an announcement and held against fixed limits."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

from broker.errors import UsageError
from broker.plan import OPTIMIZERS, SCHEDULES, Optimizer, Schedule


class RefusedPlan(UsageError):
    """A plan is outside the limits within which a site computes on another's behalf."""


@dataclass(frozen=True)
class Plan:
    """How to train from one version. `steps` of `batch_size` rows each; RefusedPlan if a number is out of bounds.

    `clip_norm` bounds the L2 norm of a step's gradient, 0 leaves it alone. `patience` ends the round after so many
    checks of the validation loss without improvement (site_worker/descent.py), 0 takes all steps. `proximal` is mu of
    FedProx, 0 leaves it out.
    """

    steps: int
    batch_size: int
    learning_rate: float
    optimizer: Optimizer = "sgd"
    weight_decay: float = 0.0
    momentum: float = 0.0
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    clip_norm: float = 0.0
    patience: int = 0
    proximal: float = 0.0

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            if not low <= getattr(self, name) <= high:
                raise RefusedPlan(f"The plan's {name} is {getattr(self, name)}; choose {low} to {high}.")
        for name, words in WORDS.items():
            if getattr(self, name) not in words:
                raise RefusedPlan(f"The plan's {name} is {getattr(self, name)!r}; choose one of {', '.join(words)}.")
        if self.warmup_steps >= self.steps:
            raise RefusedPlan(f"The plan's warmup_steps is {self.warmup_steps} of {self.steps} steps; choose fewer.")

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, float]) -> Self:
        """The plan of an announcement, which carries numbers alone: see broker/plan.py."""
        needed, known = {"steps", "batch_size", "learning_rate"}, {field.name for field in fields(cls)}
        if not needed <= set(numbers) <= known:
            raise RefusedPlan(f"The plan names {', '.join(sorted(numbers))}; it may name {', '.join(sorted(known))}.")
        if not all(float(numbers[name]).is_integer() for name in WHOLE.intersection(numbers)):
            raise RefusedPlan(f"The plan's {', '.join(sorted(WHOLE))} must be whole numbers.")
        values: dict[str, Any] = {name: int(one) if name in WHOLE else one for name, one in numbers.items()}
        for name, words in WORDS.items():
            if values.get(name, 0) not in range(len(words)):
                raise RefusedPlan(f"The plan's {name} is {values[name]}, which this version does not have; upgrade.")
            values[name] = words[values.get(name, 0)]
        return cls(**values)

    def rate(self, number: int) -> float:
        """The learning rate of step `number`, counted from 1.

        It rises linearly over the warm-up and is full at the step after it. From there `cosine` (Loshchilov and Hutter
        2017, eq. 5, without restarts) and `linear` fall towards 0, which would be reached one step after the last.
        """
        if number <= self.warmup_steps:
            return self.learning_rate * number / (self.warmup_steps + 1)
        done = (number - self.warmup_steps - 1) / (self.steps - self.warmup_steps)
        return self.learning_rate * _FALLS[self.schedule](done)


LIMITS: Final[Mapping[str, tuple[float, float]]] = {
    "steps": (1, 1_000_000),
    "batch_size": (1, 1_000_000),
    "learning_rate": (1e-9, 100.0),
    "weight_decay": (0.0, 1.0),
    "momentum": (0.0, 0.999),
    "warmup_steps": (0, 1_000_000),
    "clip_norm": (0.0, 1e9),
    "patience": (0, 1_000_000),
    "proximal": (0.0, 1e6),
}
WORDS: Final[Mapping[str, tuple[str, ...]]] = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}
WHOLE: Final = frozenset({"steps", "batch_size", "warmup_steps", "patience", *WORDS})
_FALLS: Final[Mapping[Schedule, Callable[[float], float]]] = {
    "constant": lambda _: 1.0,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "linear": lambda done: 1 - done,
}
