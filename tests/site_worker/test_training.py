"""The local loop: what it loads, takes, leaves and refuses."""

import math
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

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
from site_worker.tasks.task import Split, Task, load_task
from site_worker.training import Outcome, Plan, RefusedPlan, Stopped, Trainer, TrainingError, initial_weights

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
def test_the_optimizers_are_those_of_torch(optimizer: Optimizer) -> None:
    plan = Plan(25, 4, 0.05, optimizer, weight_decay=0.1, momentum=0.8 if optimizer == "sgd" else 0.0)
    table = rows((1.0, 2.0), (2.0, 3.0), (-1.0, 0.5), (0.5, 0.0))
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.3)
    theirs: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=0.05, weight_decay=0.1)
    if optimizer == "sgd":
        theirs = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.8, weight_decay=0.1)
    for _ in range(25):
        theirs.zero_grad()
        mse_loss(model(table.tensors[0]), table.tensors[1]).backward()  # type: ignore[no-untyped-call]
        theirs.step()
    ours = train(line(table), {"weight": np.array([[0.3]], np.float32)}, plan).weights["weight"]
    assert ours.item() == pytest.approx(model.weight.item(), rel=1e-5)


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


def test_outcomes_share_no_memory_with_the_model() -> None:
    task = tiny()
    trainer, start = Trainer(task, None, seed=0), initial_weights(task)
    first = trainer.train(start, PLAN, threading.Event()).weights["weight"]
    kept = first.copy()
    trainer.train(start, PLAN, threading.Event())
    assert np.array_equal(first, kept)


class Normalised(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.BatchNorm1d(1), nn.Linear(1, 1))


def test_integer_buffers_stay_at_the_site() -> None:
    task = line(rows(*[(float(i), float(i)) for i in range(5)]), Normalised)
    shared = initial_weights(task)
    assert "0.running_mean" in shared
    assert "0.num_batches_tracked" not in shared
    assert set(train(task, shared, Plan(3, 2, 0.01)).weights) == set(shared)  # a last batch of one row would raise


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


@pytest.mark.parametrize("limits", [{"train": rows()}, {"test": rows()}])
def test_a_site_without_rows_is_told_so(limits: dict[str, TensorDataset]) -> None:
    split = replace(Split(rows((1.0, 1.0)), rows((1.0, 1.0))), **limits)
    with pytest.raises(UsageError, match=r"'line' has no (training|held-out) rows"):
        Trainer(replace(line(rows()), split=lambda _: split), None, seed=0)


@pytest.mark.parametrize(
    "weights",
    [
        {"weight": np.zeros((1, 2), np.float32)},
        {},
        {"weight": np.zeros((1, 1), np.float32), "bias": np.zeros(1, np.float32)},
    ],
)
def test_weights_of_another_model_are_refused(weights: Weights) -> None:
    with pytest.raises(UsageError, match=r"task 'line'.*'(weight|bias)'"):
        train(line(rows((1.0, 1.0))), weights)


def test_a_loss_that_is_not_finite_names_what_the_site_can_do() -> None:
    with pytest.raises(TrainingError, match="nan at step 1: look for missing or extreme values in this site's rows"):
        train(line(rows((math.nan, 1.0))), {"weight": np.ones((1, 1), np.float32)})


def test_numbers_that_are_not_finite_are_left_out() -> None:
    task = replace(line(rows((1.0, math.nan))), metrics={"auc": lambda *_: math.nan, "half": lambda *_: 0.5})
    numbers = Trainer(task, None, seed=0).evaluate({"weight": np.ones((1, 1), np.float32)})
    assert numbers == {"rows": 1.0, "half": 0.5}


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


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"steps": 10**9},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"learning_rate": math.inf},
        {"weight_decay": -0.1},
        {"momentum": 1.0},
        {"optimizer": "lbfgs"},
    ],
)
def test_a_plan_beyond_the_limits_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(RefusedPlan, match=next(iter(change))):
        replace(PLAN, **change)  # type: ignore[arg-type]


def test_a_plan_is_read_from_the_numbers_of_an_announcement() -> None:
    numbers = {"steps": 5.0, "batch_size": 8.0, "learning_rate": 0.1, "optimizer": 1.0, "weight_decay": 0.01}
    assert Plan.from_numbers(numbers) == Plan(5, 8, 0.1, "adam", weight_decay=0.01)
    assert Plan.from_numbers({"steps": 5.0, "batch_size": 8.0, "learning_rate": 0.1}) == Plan(5, 8, 0.1, "sgd")


@pytest.mark.parametrize(
    "change", [{"steps": 1.5}, {"steps": math.nan}, {"batch_size": math.inf}, {"optimizer": 2.0}, {"code": 1.0}]
)
def test_numbers_that_are_no_plan_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(RefusedPlan):
        Plan.from_numbers({"steps": 5.0, "batch_size": 8.0, "learning_rate": 0.1} | change)
    with pytest.raises(RefusedPlan):
        Plan.from_numbers(change)


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


def test_a_new_model_is_the_same_for_the_same_seed_and_disturbs_no_other_draws() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, again, other = (initial_weights(tiny(), seed=seed)["weight"] for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("parameters", [37, 10_000, 1_000_000])
def test_a_synthetic_model_has_about_as_many_parameters_as_asked(parameters: int) -> None:
    task = synthetic(parameters, rows=8)
    weights = initial_weights(task)
    assert 0.85 * parameters <= sum(array.size for array in weights.values()) <= parameters
    assert train(task, weights, Plan(1, 4, 0.01)).examples == 6


def test_a_synthetic_model_too_small_to_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 37"):
        synthetic(10)


def test_a_task_is_loaded_from_the_hospitals_own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wards_for_test.py").write_text(
        "from site_worker.tasks.synthetic import tiny\n"
        "def ward(rows): return tiny(rows=rows)\n"
        "def wrong(): return 5\n"
        "words = 'no function'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wards_for_test", raising=False)
    assert Trainer(load_task("wards_for_test:ward", {"rows": 16}), None, seed=0).examples == 12
    for spec, options, complaint in [
        ("wards_for_test:ward", {"beds": 3}, "options: missing a required argument: 'rows'"),
        ("wards_for_test:ward", {"rows": 8, "beds": 3}, "options: got an unexpected keyword argument 'beds'"),
        ("wards_for_test:wrong", {}, "returns a int"),
        ("wards_for_test:absent", {}, "has no 'absent'"),
        ("wards_for_test:words", {}, "has no 'words'"),
        ("no_such_ward:ward", {}, "No module named 'no_such_ward'"),
        ("wards_for_test", {}, "must be written as module:function"),
        (":ward", {}, "must be written as module:function"),
        (".relative:ward", {}, "must be written as module:function"),
    ]:
        with pytest.raises(UsageError, match=complaint):
            load_task(spec, options)
