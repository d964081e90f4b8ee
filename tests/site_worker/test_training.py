"""The local loop: what it loads, takes, leaves and refuses."""

import math
import threading
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import Dataset, TensorDataset

from broker.errors import UsageError
from broker.plan import OPTIMIZERS, Optimizer
from broker.statistics import FeatureStatistics
from site_worker.tasks.synthetic import synthetic, tiny
from site_worker.tasks.task import Measure, Split, Task
from site_worker.training import Outcome, Plan, Stopped, Trainer, TrainingError, initial_weights
from tests.site_worker.practice import After

Weights = Mapping[str, NDArray[np.float32]]

PLAN = Plan(steps=40, batch_size=16, learning_rate=0.5)


def line(rows: TensorDataset, model: type[nn.Module] | None = None) -> Task:
    """y = w x, mean squared error: one step can be worked by hand."""
    return Task("line", model or (lambda: nn.Linear(1, 1, bias=False)), lambda _: Split(rows, rows), mse_loss, {})


def train(task: Task, weights: Weights, plan: Plan = PLAN, seed: int = 0) -> Outcome:
    return Trainer(task, None, seed=seed).train(weights, plan, threading.Event())


def rows(*pairs: tuple[float, float]) -> TensorDataset:
    table = torch.tensor(pairs).reshape(-1, 2)
    return TensorDataset(table[:, :1], table[:, 1:])


def test_one_step_is_the_one_worked_by_hand() -> None:
    # Loss (2w - 6)^2 at w = 1 is 16, its slope 2 * 2 * (2 - 6) = -16, so w becomes 1 + 0.1 * 16 = 2.6.
    outcome = train(line(rows((2.0, 6.0))), {"weight": np.array([[1.0]], np.float32)}, Plan(1, 8, 0.1))
    assert outcome.weights["weight"].item() == pytest.approx(2.6)
    assert (outcome.loss, outcome.steps, outcome.examples) == (16.0, 1, 1)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_lowers_the_held_out_loss_and_raises_the_auc(optimizer: Optimizer) -> None:
    task = tiny(rows=256)
    trainer, start = Trainer(task, None, seed=0), initial_weights(task)
    before = trainer.evaluate(start)
    after = trainer.evaluate(trainer.train(start, replace(PLAN, optimizer=optimizer), threading.Event()).weights)
    assert after["loss"] < before["loss"] / 1.2
    assert after["auc"] > 0.85
    assert after["rows"] == 64
    assert trainer.examples == 192


def test_the_same_seed_gives_the_same_weights_and_the_given_ones_are_left_alone() -> None:
    task = tiny()
    start = initial_weights(task)
    kept = {name: array.copy() for name, array in start.items()}
    for array in start.values():
        array.flags.writeable = False
    first, again, other = (train(task, start, seed=seed).weights["weight"] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert all(np.array_equal(kept[name], start[name]) for name in kept)


def test_an_outcome_is_the_live_model_and_no_second_copy() -> None:
    task = tiny()
    trainer, start = Trainer(task, None, seed=0), initial_weights(task)
    first = trainer.train(start, PLAN, threading.Event()).weights["weight"]
    kept = first.copy()
    again = trainer.train(start, PLAN, threading.Event(), version=1).weights["weight"]
    assert np.shares_memory(first, again)
    assert not np.array_equal(first, kept)


def test_nothing_of_a_round_stays_once_it_is_over_or_stopped() -> None:
    network = nn.Linear(4, 1)
    trainer = Trainer(replace(tiny(), model=lambda: network), None, seed=0)
    weights = {"weight": np.zeros((1, 4), np.float32), "bias": np.zeros(1, np.float32)}
    trainer.train(weights, PLAN, threading.Event())
    assert [one.grad for one in network.parameters()] == [None, None]
    with pytest.raises(Stopped):
        trainer.train(weights, PLAN, After(2))
    assert [one.grad for one in network.parameters()] == [None, None]


class Listed(Dataset[tuple[torch.Tensor, ...]]):
    """A hospital's own dataset, one row at a time."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, number: int) -> tuple[torch.Tensor, ...]:
        if not 0 <= number < 3:
            raise IndexError(number)
        return torch.tensor([float(number)]), torch.tensor([2.0 * number])


def test_any_dataset_with_a_length_will_do() -> None:
    task = replace(line(rows((0.0, 0.0))), split=lambda _: Split(Listed(), Listed()))
    assert train(task, initial_weights(task)).weights["weight"].item() == pytest.approx(2.0, abs=1e-3)


def test_a_site_without_training_rows_is_told_so() -> None:
    with pytest.raises(UsageError, match="'line' has no training rows"):
        Trainer(line(rows()), None, seed=0)


def test_a_site_that_holds_nothing_out_trains_and_measures_nothing() -> None:
    task = replace(line(rows((2.0, 6.0))), split=lambda _: Split(rows((2.0, 6.0)), rows()))
    trainer = Trainer(task, None, seed=0)
    weights = {"weight": np.array([[1.0]], np.float32)}
    assert (trainer.held_out, trainer.evaluate(weights)) == (0, {"rows": 0.0})
    assert trainer.train(weights, Plan(1, 8, 0.1), threading.Event()).weights["weight"].item() == pytest.approx(2.6)


def test_a_loss_that_is_not_finite_names_what_the_site_can_do() -> None:
    with pytest.raises(TrainingError, match="nan at step 1: look for missing or extreme values in this site's rows"):
        train(line(rows((math.nan, 1.0))), {"weight": np.ones((1, 1), np.float32)})


def test_numbers_that_are_not_finite_are_left_out() -> None:
    task = replace(line(rows((1.0, math.nan))), metrics={"auc": lambda *_: math.nan, "half": lambda *_: 0.5})
    numbers = Trainer(task, None, seed=0).evaluate({"weight": np.ones((1, 1), np.float32)})
    assert numbers == {"rows": 1.0, "half": 0.5}


def test_a_metric_may_be_several_numbers_each_with_its_name() -> None:
    metrics: Mapping[str, Measure] = {
        "counts": lambda scores, labels: {"all": len(labels), "high": float((scores > 2).sum()), "none": math.nan},
        "rows": lambda *_: 99.0,  # cannot take the place of the count
    }
    task = replace(line(rows((1.0, 1.0), (3.0, 3.0))), metrics=metrics)
    numbers = Trainer(task, None, seed=0).evaluate({"weight": np.ones((1, 1), np.float32)})
    assert numbers == {"rows": 2.0, "loss": 0.0, "counts.all": 2.0, "counts.high": 1.0}


class Dropping(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(1, 16), nn.Dropout(0.5), nn.Linear(16, 1))


def bits(trainer: Trainer, weights: Weights, version: int) -> bytes:
    trained = trainer.train(weights, replace(PLAN, learning_rate=0.01), threading.Event(), version=version)
    return b"".join(one.tobytes() for one in trained.weights.values())


def test_a_round_follows_from_seed_and_version_whatever_was_done_before() -> None:
    task = line(rows(*[(i / 20, i / 10) for i in range(20)]), Dropping)
    weights = initial_weights(task)
    first = bits(Trainer(task, None, seed=0), weights, 5)
    trainer = Trainer(task, None, seed=0)
    other = bits(trainer, weights, 4)
    torch.manual_seed(99)
    torch.rand(10)
    expected = torch.get_rng_state()
    trainer.evaluate(weights)
    assert bits(trainer, weights, 5) == first
    assert torch.equal(torch.get_rng_state(), expected)  # and leaves other people's draws alone
    assert other != first
    assert bits(Trainer(task, None, seed=1), weights, 5) != first


def test_two_sites_that_train_in_one_process_do_not_draw_each_others_noise() -> None:
    task = line(rows(*[(i / 20, i / 10) for i in range(20)]), Dropping)
    weights, came = initial_weights(task), dict[int, bytes]()

    def work(seed: int) -> None:
        came[seed] = bits(Trainer(task, None, seed=seed), weights, 5)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert came == {seed: bits(Trainer(task, None, seed=seed), weights, 5) for seed in range(4)}


def test_training_stops_between_steps() -> None:
    stopping, task = threading.Event(), tiny()
    seen: list[int] = []

    def loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(1)
        if len(seen) == 3:
            stopping.set()
        return task.loss(scores, labels)

    trainer = Trainer(replace(task, loss=loss), None, seed=0)
    with pytest.raises(Stopped, match="before step 4 of 40"):
        trainer.train(initial_weights(task), PLAN, stopping)
    assert len(seen) == 3


def test_a_slow_site_stops_without_waiting_its_delay_out() -> None:
    stopping, stopped = threading.Event(), threading.Event()
    stepped, task = threading.Event(), tiny()

    def loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        stepped.set()
        return task.loss(scores, labels)

    trainer = Trainer(replace(task, loss=loss), None, seed=0, step_delay_s=3600.0)

    def work() -> None:
        with pytest.raises(Stopped):
            trainer.train(initial_weights(task), PLAN, stopping)
        stopped.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert stepped.wait(60)
    stopping.set()
    assert stopped.wait(60)
    thread.join()


def test_the_federations_statistics_scale_the_rows() -> None:
    sites = [tiny(site) for site in (0, 1)]
    parts = [site.statistics() for site in sites if site.statistics]
    common = FeatureStatistics.summed(parts)
    assert common is not None
    train_rows = [site.split(common).train for site in sites]
    tables = [one.tensors[0].numpy() for one in train_rows if isinstance(one, TensorDataset)]
    both = np.vstack(tables)
    assert abs(tables[0].mean(axis=0)).max() > 0.1  # scaled with its own, each site would lose where it differs
    assert both.mean(axis=0) == pytest.approx(0.0, abs=1e-5)
    assert both.std(axis=0) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("parameters", [37, 10_000, 1_000_000])
def test_a_synthetic_model_has_about_as_many_parameters_as_asked(parameters: int) -> None:
    task = synthetic(parameters, rows=8)
    weights = initial_weights(task)
    assert 0.85 * parameters <= sum(array.size for array in weights.values()) <= parameters
    assert train(task, weights, Plan(1, 4, 0.01)).examples == 6


def test_a_synthetic_model_too_small_to_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 37"):
        synthetic(10)
