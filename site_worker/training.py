"""Local training, the same for every task: load weights, take a bounded number of steps, hand back weights.

`weights` map state_dict names to float32 arrays. Only floating-point entries are shared; integer buffers, such as
batch counters, are the site's own and keep their local values.

The two optimizers are written out because the first object of `torch.optim` imports torch's compiler: 1.4 s of
processor time in every worker at its start, for some twenty lines. A test holds them to `torch.optim`.
"""

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset, default_collate

from broker.errors import FedqueueError, UsageError
from broker.plan import OPTIMIZERS, Optimizer
from broker.statistics import FeatureStatistics
from site_worker.tasks.task import Rows, Task

Weights = Mapping[str, NDArray[np.float32]]
EVALUATION_ROWS: Final = 1024


class TrainingError(FedqueueError):
    """Training left the numbers; the text names what the site can do."""


class RefusedPlan(UsageError):
    """A plan is outside the limits within which a site computes on another's behalf."""


class Stopped(FedqueueError):
    """Training was asked to stop between two steps; nothing of it is kept."""


@dataclass(frozen=True)
class Plan:
    """How to train from one version. `steps` of `batch_size` rows each; RefusedPlan if a number is out of bounds."""

    steps: int
    batch_size: int
    learning_rate: float
    optimizer: Optimizer = "sgd"
    weight_decay: float = 0.0
    momentum: float = 0.0

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            if not low <= getattr(self, name) <= high:
                raise RefusedPlan(f"The plan's {name} is {getattr(self, name)}; choose {low} to {high}.")
        if self.optimizer not in OPTIMIZERS:
            raise RefusedPlan(f"The plan's optimizer is {self.optimizer!r}; choose one of {', '.join(OPTIMIZERS)}.")

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, float]) -> Self:
        """The plan of an announcement, which carries numbers alone: see broker/plan.py."""
        needed, known = {"steps", "batch_size", "learning_rate"}, {field.name for field in fields(cls)}
        if not needed <= set(numbers) <= known:
            raise RefusedPlan(f"The plan names {', '.join(sorted(numbers))}; it may name {', '.join(sorted(known))}.")
        whole = {name: int(numbers[name]) for name in WHOLE if float(numbers.get(name, math.nan)).is_integer()}
        if len(whole) < len(WHOLE.intersection(numbers)) or whole.get("optimizer", 0) not in range(len(OPTIMIZERS)):
            raise RefusedPlan(f"The plan's {', '.join(sorted(WHOLE))} must be whole numbers that mean something.")
        optimizer = OPTIMIZERS[whole.pop("optimizer", 0)]
        rates = {name: number for name, number in numbers.items() if name not in WHOLE}
        return cls(steps=whole["steps"], batch_size=whole["batch_size"], optimizer=optimizer, **rates)


LIMITS: Final[Mapping[str, tuple[float, float]]] = {
    "steps": (1, 1_000_000),
    "batch_size": (1, 1_000_000),
    "learning_rate": (1e-9, 100.0),
    "weight_decay": (0.0, 1.0),
    "momentum": (0.0, 0.999),
}
WHOLE: Final = frozenset({"steps", "batch_size", "optimizer"})


@dataclass(frozen=True)
class Outcome:
    """Weights after `steps` steps, the site's training rows, and the mean training loss of the steps."""

    weights: dict[str, NDArray[np.float32]]
    steps: int
    examples: int
    loss: float


class Trainer:
    """One site's model and rows. Not thread-safe: train and evaluate from one thread at a time.

    `statistics` are the federation's, to scale with. `seed` orders the batches. `step_delay_s` is waited after every
    step, for a hospital whose machine must stay usable, and for demonstrations of a slow one.
    """

    def __init__(
        self, task: Task, statistics: FeatureStatistics | None, *, seed: int, step_delay_s: float = 0.0
    ) -> None:
        self._task, self._step_delay_s = task, step_delay_s
        self._split = task.split(statistics)
        self._model = task.model()
        self._random = np.random.default_rng(seed)
        self.examples = _count(self._split.train, f"Task {task.name!r} has no training rows")
        self.held_out = _count(self._split.test, f"Task {task.name!r} has no held-out rows")

    def evaluate(self, weights: Weights) -> dict[str, float]:
        """Metrics and "loss" of `weights` on the held-out rows, and how many "rows"; what is not finite is left out."""
        _load(self._model, weights, self._task.name)
        self._model.eval()
        with torch.inference_mode():
            batches = [_batch(self._split.test, rows) for rows in _in_order(self.held_out)]
            scores = torch.cat([self._model(x) for x, _ in batches])
            labels = torch.cat([y for _, y in batches])
            numbers = {"rows": float(self.held_out), "loss": float(self._task.loss(scores, labels))}
        for name, metric in self._task.metrics.items():
            numbers[name] = float(metric(scores.numpy(), labels.numpy()))
        return {name: number for name, number in numbers.items() if math.isfinite(number)}

    def train(self, weights: Weights, plan: Plan, stopping: threading.Event) -> Outcome:
        """Train by `plan` from `weights`; Stopped if `stopping` is set between steps, TrainingError if it diverges."""
        _load(self._model, weights, self._task.name)
        self._model.train()
        step = _RULES[plan.optimizer]([one for one in self._model.parameters() if one.requires_grad], plan)
        total = 0.0
        batches = _shuffled(self.examples, plan.batch_size, self._random)
        for number, rows in zip(range(1, plan.steps + 1), batches, strict=False):
            if stopping.is_set():
                raise Stopped(f"Training stopped before step {number} of {plan.steps}.")
            total += self._descend(rows, number)
            step()
            if self._step_delay_s:
                stopping.wait(self._step_delay_s)
        return Outcome(shared_weights(self._model), plan.steps, self.examples, total / plan.steps)

    def _descend(self, rows: NDArray[np.int64], number: int) -> float:
        x, y = _batch(self._split.train, rows)
        self._model.zero_grad()
        loss = self._task.loss(self._model(x), y)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"The loss of task {self._task.name!r} is {value} at step {number}: look for missing or extreme values "
                "in this site's rows, or ask the coordinator for a lower learning rate."
            )
        loss.backward()  # type: ignore[no-untyped-call]
        return value


def initial_weights(task: Task, *, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """What a federation starts from: the weights of a new model, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return shared_weights(task.model())


def shared_weights(model: nn.Module) -> dict[str, NDArray[np.float32]]:
    """Copies of the floating-point entries of the model's state, as float32."""
    return {name: np.array(one.detach().float().numpy()) for name, one in _shared(model).items()}


def _shared(model: nn.Module) -> dict[str, Tensor]:
    return {name: one for name, one in model.state_dict().items() if one.is_floating_point()}


def _load(model: nn.Module, weights: Weights, task: str) -> None:
    own = _shared(model)
    odd = sorted(set(own) ^ set(weights)) or [name for name in own if tuple(own[name].shape) != weights[name].shape]
    if odd:
        raise UsageError(
            f"The federation's model is not that of task {task!r}: compare tensor {odd[0]!r} with the others."
        )
    with torch.no_grad():
        for name, one in own.items():
            one.copy_(torch.tensor(weights[name]))


def _count(rows: Rows, complaint: str) -> int:
    count = len(rows)  # type: ignore[arg-type]
    if not count:
        raise UsageError(f"{complaint}: check the path and the filters in this site's configuration.")
    return count


def _batch(rows: Rows, numbers: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Rows by number, stacked; a TensorDataset gives them at once."""
    if isinstance(rows, TensorDataset):
        x, y = rows[torch.from_numpy(numbers)]
    else:
        x, y = default_collate([rows[int(number)] for number in numbers])
    return x, y


def _in_order(count: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, count, EVALUATION_ROWS):
        yield np.arange(start, min(start + EVALUATION_ROWS, count))


def _shuffled(count: int, batch_size: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Batches without end; all of one size, since a small last one is poison to batch normalisation."""
    size = min(batch_size, count)
    while True:
        order = random.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


def _gradients(parameters: list[nn.Parameter], plan: Plan) -> Iterator[tuple[int, nn.Parameter, Tensor]]:
    """Position, parameter and gradient with weight decay, of the parameters the loss reached."""
    for position, one in enumerate(parameters):
        if one.grad is not None:
            yield position, one, one.grad.add(one, alpha=plan.weight_decay)


def _sgd(parameters: list[nn.Parameter], plan: Plan) -> Callable[[], None]:
    """Stochastic gradient descent with heavy-ball momentum, as torch.optim.SGD."""
    velocity = [torch.zeros_like(one) for one in parameters] if plan.momentum else []

    @torch.no_grad()
    def step() -> None:
        for position, one, gradient in _gradients(parameters, plan):
            moved = velocity[position].mul_(plan.momentum).add_(gradient) if plan.momentum else gradient
            one.sub_(moved, alpha=plan.learning_rate)

    return step


def _adam(parameters: list[nn.Parameter], plan: Plan) -> Callable[[], None]:
    """Adam (Kingma and Ba 2015, algorithm 1) with weight decay in the gradient, as torch.optim.Adam; b1 .9, b2 .999."""
    means = [torch.zeros_like(one) for one in parameters]
    squares = [torch.zeros_like(one) for one in parameters]
    steps = 0

    @torch.no_grad()
    def step() -> None:
        nonlocal steps
        steps += 1
        for position, one, gradient in _gradients(parameters, plan):
            mean = means[position].lerp_(gradient, 0.1)
            square = squares[position].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            spread = square.sqrt().div_(math.sqrt(1 - 0.999**steps)).add_(1e-8)
            one.addcdiv_(mean, spread, value=-plan.learning_rate / (1 - 0.9**steps))

    return step


_RULES: Final[Mapping[Optimizer, Callable[[list[nn.Parameter], Plan], Callable[[], None]]]] = {
    "sgd": _sgd,
    "adam": _adam,
}
