"""Early stopping: what is checked, when a round ends, and that its best weights are what is sent."""

import threading

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

from site_worker.plan import Plan
from site_worker.tasks.task import Split, Task
from site_worker.training import Outcome, Trainer, TrainingError

# One weight w, rows (1, w*): a step of rate 0.5 on (w - w*)^2 jumps to w* at once, whatever the batch.
STEPS = 40  # checked every 2 steps


def line(*targets: float, rows: int = 20) -> Task:
    """Rows (1, target); the optimum is the mean of the targets."""
    labels = torch.tensor(targets * (rows // len(targets)))[:, None]
    data = TensorDataset(torch.ones_like(labels), labels)
    return Task("line", lambda: nn.Linear(1, 1, bias=False), lambda _: Split(data, data), mse_loss)


def trained(task: Task, plan: Plan, *, weight: float = 0.0) -> tuple[Outcome, list[tuple[float, int]]]:
    """The outcome, and weight and rows of each loss that was taken while the network was evaluated."""
    seen, network = list[tuple[float, int]](), task.model()

    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        if not network.training:
            seen.append((network.state_dict()["weight"].item(), len(labels)))
        return task.loss(scores, labels)

    given = Task(task.name, lambda: network, task.split, loss)
    outcome = Trainer(given, None, seed=0).train({"weight": np.array([[weight]], np.float32)}, plan, threading.Event())
    return outcome, seen


def test_without_patience_all_rows_are_trained_on_and_nothing_is_checked() -> None:
    outcome, checks = trained(line(1.0), Plan(STEPS, 4, 0.5))
    assert (outcome.steps, outcome.examples, checks) == (STEPS, 20, [])


def test_once_it_no_longer_gets_better_the_round_ends_and_says_how_many_steps_it_took() -> None:
    outcome, checks = trained(line(1.0), Plan(STEPS, 4, 0.5, patience=3))
    assert checks == [(1.0, 2)] * 4  # the first is the best, three more are no better; two rows of twenty
    assert (outcome.steps, outcome.examples, outcome.weights["weight"].item()) == (8, 18, 1.0)


def test_as_long_as_it_gets_better_it_goes_on() -> None:
    outcome, checks = trained(line(1.0), Plan(STEPS, 4, 0.01, patience=1))
    assert outcome.steps == STEPS
    assert len(checks) == 20


def test_the_best_weights_are_sent_and_not_the_last() -> None:
    plan = Plan(STEPS, 18, 1.05, patience=4)  # each step overshoots, and lands farther away than it was
    outcome, checks = trained(line(1.0), plan, weight=1.001)
    weights = [weight for weight, _ in checks]
    assert len(checks) == 5
    assert abs(weights[-1] - 1) > abs(weights[0] - 1)
    assert outcome.weights["weight"].item() == weights[0]
    assert outcome.steps == 10


@pytest.mark.parametrize(("steps", "checks"), [(1, 1), (7, 7), (39, 39), (41, 21), (45, 23)])
def test_it_is_checked_about_twenty_times_and_after_the_last_step(steps: int, checks: int) -> None:
    _, seen = trained(line(1.0), Plan(steps, 4, 1e-4, patience=99))
    assert len(seen) == checks


def test_of_a_single_row_nothing_is_set_aside() -> None:
    outcome, checks = trained(line(1.0, rows=1), Plan(STEPS, 4, 0.5, patience=1))
    assert (outcome.steps, outcome.examples, checks) == (STEPS, 1, [])


def test_every_step_is_taken_in_training_mode() -> None:
    modes, network, task = list[bool](), nn.Linear(1, 1, bias=False), line(1.0)

    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        modes.append(network.training)
        return mse_loss(scores, labels)

    weights = {"weight": np.zeros((1, 1), np.float32)}
    trainer = Trainer(Task("line", lambda: network, task.split, loss), None, seed=0)
    trainer.train(weights, Plan(4, 4, 0.1, patience=9), threading.Event())
    trainer.evaluate(weights)
    assert modes == [True, False] * 4 + [False]


def test_a_validation_loss_that_is_no_number_is_told() -> None:
    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        return mse_loss(scores, labels) if scores.requires_grad else scores.mean() * torch.nan

    task = Task("odd", line(1.0).model, line(1.0).split, loss)
    with pytest.raises(TrainingError, match="The validation loss of task 'odd' is nan at step 2: look for missing"):
        Trainer(task, None, seed=0).train(
            {"weight": np.zeros((1, 1), np.float32)}, Plan(STEPS, 4, 0.1, patience=1), threading.Event()
        )
