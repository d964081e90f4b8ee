"""FedProx by hand: one weight w, every row (1, 1), loss (w - 1)^2, so a gradient of 2 (w - 1) + mu (w - base)."""

import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

from site_worker.devices import PROCESSOR, Place
from site_worker.plan import Plan
from site_worker.tasks.task import Split, Task
from site_worker.training import Outcome, Trainer

HALF = Place(torch.device("cpu"), "fp16")  # no setting gives this place, but it takes the path of CUDA's fp16


class Weight(nn.Module):
    """Scores w. Not a Linear, whose gradients at fp16's first scale, 2 x 65536, are beyond what fp16 holds."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


class Sum(nn.Module):
    """Scores 2 w, of one parameter with two names or of two parameters."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(1, 1))
        self.b = self.a if tied else nn.Parameter(torch.zeros(1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (self.a + self.b)


def line(**changes: Any) -> Task:
    data = TensorDataset(torch.ones(4, 1), torch.ones(4, 1))
    return Task("line", changes.pop("model", Weight), lambda _: Split(data, data), mse_loss, **changes)


def trained(plan: Plan, *, base: float = 0.0, place: Place = PROCESSOR) -> float:
    """The weight after a round from `base`."""
    trainer = Trainer(line(), None, seed=0, place=place)
    return trainer.train(weights(weight=base), plan, threading.Event()).weights["weight"].item()


def weights(**values: float) -> dict[str, Any]:
    return {name: np.full((1, 1), value, np.float32) for name, value in values.items()}


def outcome(task: Task, plan: Plan, given: dict[str, Any]) -> Outcome:
    return Trainer(task, None, seed=0).train(given, plan, threading.Event())


@pytest.mark.parametrize("place", [PROCESSOR, HALF])
@pytest.mark.parametrize(
    ("mu", "weight"),
    [
        (0.0, 0.75),  # 0 -> 0.5, slope -2; 0.5 -> 0.75, slope -1
        (1.0, 0.625),  # the second slope is -1 + 1 x 0.5
        (2.0, 0.5),  # ... and here 0
    ],
)
def test_two_steps_by_hand(mu: float, weight: float, place: Place) -> None:
    assert trained(Plan(2, 4, 0.25, proximal=mu), place=place) == weight


def test_the_first_step_is_not_pulled_for_it_begins_at_the_base() -> None:
    assert trained(Plan(1, 4, 0.25, proximal=100.0)) == 0.5


def test_the_pull_is_towards_the_model_that_the_round_began_from_and_not_towards_zero() -> None:
    # base 2: 2 -> 1.5, slope 2; then slope 1 + 2 (1.5 - 2) = 0
    assert trained(Plan(2, 4, 0.25, proximal=2.0), base=2.0) == 1.5


def test_the_sum_is_clipped_and_not_the_loss_alone() -> None:
    # slope -2, clipped to -1: 0.25. Then -1.5 + 2 x 0.25 = -1, which may stay: 0.5. Clipped before, it were 0.375.
    assert trained(Plan(2, 4, 0.25, proximal=2.0, clip_norm=1.0)) == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize(("mu", "weight"), [(0.0, 1.0), (2.0, 0.5), (6.0, 0.25), (38.0, 0.05), (998.0, 0.002)])
def test_a_long_round_ends_where_loss_and_pull_balance_near_the_base_where_mu_is_large(
    mu: float, weight: float
) -> None:
    assert trained(Plan(800, 4, 1 / (2 + mu) / 4, proximal=mu)) == pytest.approx(weight, rel=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_every_optimizer_goes_by_the_sum(optimizer: Any) -> None:
    assert trained(Plan(400, 4, 0.01, optimizer, proximal=2.0)) == pytest.approx(0.5, abs=0.01)


def test_what_stays_at_the_site_is_not_pulled() -> None:
    # Score a + b, slope 2 (a + b - 1) for both: 0.25 each, then -1, to which 2 x 0.25 is added for a alone.
    task = line(model=lambda: Sum(tied=False), local=("b",))
    done = outcome(task, Plan(2, 4, 0.125, proximal=2.0), weights(a=0.0))
    assert (done.weights["a"].item(), done.own["b"].item()) == (0.3125, 0.375)


def test_a_parameter_with_two_names_is_pulled_once() -> None:
    # Score 2 a, slope 4 (2 a - 1): a = 0.125 x 4 x 0.5 = 0.25, then -2 + 2 x 0.25 = -1.5: 0.25 + 0.0625 x 1.5
    done = outcome(line(model=lambda: Sum(tied=True)), Plan(2, 4, 0.0625, proximal=2.0), weights(a=0.0, b=0.0))
    assert done.weights["a"].item() == 0.34375


def test_the_loss_that_is_told_is_without_the_term() -> None:
    done = outcome(line(), Plan(2, 4, 0.25, proximal=2.0), weights(weight=0.0))
    assert done.loss == (1.0 + 0.25) / 2


def test_a_parameter_that_the_loss_does_not_reach_stays_where_it_is() -> None:
    class Idle(Sum):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.a

    plan = Plan(3, 4, 0.25, "adamw", proximal=2.0, weight_decay=0.5)
    done = outcome(line(model=lambda: Idle(tied=False)), plan, weights(a=0.0, b=3.0))
    assert done.weights["b"].item() == 3.0
