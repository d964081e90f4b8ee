"""The task of a file: what it trains on, what it holds out, what it measures, and the awkward hospitals."""

import logging
import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, TensorDataset

from broker.errors import UsageError
from broker.histograms import pooled_auc, pooled_auc_bound
from broker.messages import Named
from broker.statistics import FeatureStatistics
from broker.weights import Layout
from site_worker.tabular.features import held_out
from site_worker.tasks.pooling import all_rows, pooled
from site_worker.tasks.tabular import tabular
from site_worker.tasks.task import Rows, Split, Task, load_task
from site_worker.training import Plan, Trainer, initial_weights
from tests.tabular.bench import SIMPLE, SURVIVAL, declared, written

QUIET = SIMPLE + "[metrics]\nhistograms = false\n"
MLP = QUIET.replace("logistic", "mlp") + "[model]\nhidden = [4, 3]\ndropout = 0.5\n"
LAST = [("6.weight", (1, 3)), ("6.bias", (1,))]
PLAN = Plan(steps=50, batch_size=16, learning_rate=0.5)


def tensors(split: Split) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features and labels of the training rows, then of the held-out ones; of pooled parts, one after the other."""
    x, y, x_test, y_test = (one for rows in (split.train, split.test) for one in _columns(rows))
    return x, y, x_test, y_test


def _columns(rows: Rows) -> list[Tensor]:
    if isinstance(rows, ConcatDataset):
        parts = [_columns(part) for part in rows.datasets]
        return [torch.cat(column) for column in zip(*parts, strict=True)]
    assert isinstance(rows, TensorDataset)
    return list(rows.tensors)


def ward(rows: int, shift: int = 0) -> str:
    """Everybody over 60 died, and women and men alike."""
    ages = [40 + (7 * row + shift) % 41 for row in range(rows)]
    return "age,sex,died\n" + "".join(f"{age},{'FM'[row % 2]},{int(age > 60)}\n" for row, age in enumerate(ages))


def survivors(rows: int) -> str:
    """The older, the earlier; every fourth was lost from sight a little before."""
    patients = [(40 + 7 * row % 41, row % 4 > 0) for row in range(rows)]
    return "age,days,died\n" + "".join(
        f"{age},{1000 - 10 * age - 2 * (not died)},{int(died)}\n" for age, died in patients
    )


def task(folder: Path, content: str, text: str = QUIET, seed: int = 0, name: str = "north.csv") -> Task:
    return tabular(str(declared(folder, text)), str(written(folder, content, name)), seed)


def statistics(task: Task) -> FeatureStatistics:
    assert task.statistics is not None
    return task.statistics()


def test_rows_become_scaled_tensors_of_which_a_quarter_is_held_out(tmp_path: Path) -> None:
    made = task(tmp_path, ward(80))
    x, y, x_test, y_test = tensors(made.split(None))
    assert (x.shape, y.shape, x_test.shape, y_test.shape) == ((60, 3), (60, 1), (20, 3), (20, 1))
    assert {one.dtype for one in (x, y, x_test, y_test)} == {torch.float32}
    assert x[:, 0].mean().item() == pytest.approx(0, abs=1e-5)
    assert x[:, 0].std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert y.mean().item() == pytest.approx(y_test.mean().item(), abs=0.05)
    assert made.name == "icu-logistic-04696a75"


def test_held_out_rows_enter_no_statistics(tmp_path: Path) -> None:
    header, *rows = ward(80).splitlines()
    died = np.array([float(row[-1]) for row in rows])
    spoiled = [f"999{row[2:]}" if out else row for row, out in zip(rows, held_out(died, 0.25, seed=0), strict=True)]
    honest, other = task(tmp_path, ward(80)), task(tmp_path, "\n".join([header, *spoiled]))
    assert statistics(other).to_lists() == statistics(honest).to_lists()
    assert torch.equal(tensors(other.split(None))[0], tensors(honest.split(None))[0])
    assert (tensors(other.split(None))[2][:, 0] > 50).all()


def test_the_federations_statistics_scale_every_site_alike(tmp_path: Path) -> None:
    common = FeatureStatistics(np.array([1.0]), np.array([60.0]), np.array([3700.0]))  # mean 60, spread 10
    x, *_ = tensors(task(tmp_path, "age,sex,died\n80,M,1\n").split(common))
    assert x.tolist() == [[2.0, 0.0, 1.0]]


def test_without_numbers_there_is_nothing_to_scale(tmp_path: Path) -> None:
    text = QUIET.replace('role = "number"', 'role = "ignore"')
    made = task(tmp_path, ward(8), text)
    assert made.statistics is None
    assert tensors(made.split(None))[0].shape == (6, 2)


def test_pooled_holds_out_the_very_rows_of_the_sites(tmp_path: Path) -> None:
    north, south = written(tmp_path, ward(40), "north.csv"), written(tmp_path, ward(24, 5), "south.csv")
    declaration = str(declared(tmp_path, QUIET))
    sites = [tabular(declaration, str(path), 3) for path in (north, south)]
    together = pooled(sites)
    common = FeatureStatistics.summed(map(statistics, sites))
    assert common is not None
    assert statistics(together).to_lists() == common.to_lists()
    parts = [tensors(site.split(common)) for site in sites]
    for place, one in enumerate(tensors(together.split(None))):
        assert torch.equal(one, torch.cat([part[place] for part in parts]))
    assert together.name == sites[0].name


def test_a_hospital_that_took_no_part_is_tested_whole(tmp_path: Path) -> None:
    site = task(tmp_path, ward(40))
    made = all_rows(site)
    x, y, own_x_test, own_y_test = tensors(site.split(None))
    _, _, x_test, y_test = tensors(made.split(None))
    assert torch.equal(x_test, torch.cat([x, own_x_test]))
    assert torch.equal(y_test, torch.cat([y, own_y_test]))
    assert Trainer(made, None, seed=0).evaluate(initial_weights(made))["rows"] == 40.0


def test_a_split_follows_its_seed(tmp_path: Path) -> None:
    first, again, other = (tensors(task(tmp_path, ward(80), seed=seed).split(None))[2] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        (QUIET, {"weight": (1, 3), "bias": (1,)}),
        (SURVIVAL, {"weight": (1, 1)}),
        (
            MLP,
            dict([("0.weight", (4, 3)), ("0.bias", (4,)), ("3.weight", (3, 4)), ("3.bias", (3,)), *LAST]),
        ),
    ],
    ids=["logistic", "cox", "mlp"],
)
def test_the_models(tmp_path: Path, text: str, layout: Mapping[str, tuple[int, ...]]) -> None:
    made = task(tmp_path, survivors(8) if "cox" in text else ward(8), text)
    weights = initial_weights(made)
    assert {name: one.shape for name, one in weights.items()} == layout
    assert all(not one.any() for one in weights.values()) == (made.name.split("-")[1] != "mlp")


def test_every_site_has_the_same_layout_and_name_whatever_its_file(tmp_path: Path) -> None:
    text = QUIET.replace("role", "optional = true\nrole")
    made = [task(tmp_path, one, text) for one in (ward(8), "died\n1\n0\n", "sex,died\nM,0\n")]
    assert len({one.name for one in made}) == 1
    assert len({Layout.of(initial_weights(one)).digest for one in made}) == 1


def learned(made: Task, common: FeatureStatistics | None = None, plan: Plan = PLAN) -> dict[str, float]:
    """Measures on held-out rows after one round from new weights; the same each time."""
    trainer = Trainer(made, common, seed=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        outcome = trainer.train(initial_weights(made), plan, threading.Event())
    return trainer.evaluate(outcome.weights)


@pytest.mark.parametrize("text", [QUIET, MLP.replace("dropout = 0.5", "dropout = 0.0")], ids=["logistic", "mlp"])
def test_a_rule_that_the_rows_hold_is_learned(tmp_path: Path, text: str) -> None:
    before, after = Trainer(task(tmp_path, ward(200), text), None, seed=0), learned(task(tmp_path, ward(200), text))
    assert set(after) == {"rows", "loss", "auc", "accuracy", "brier", "calibration"}
    assert after["auc"] > 0.9
    assert after["loss"] < before.evaluate(initial_weights(task(tmp_path, ward(200), text)))["loss"]


def test_survival_is_learned(tmp_path: Path) -> None:
    found = learned(task(tmp_path, survivors(200), SURVIVAL))
    assert set(found) == {"rows", "loss", "c_index"}
    assert found["c_index"] > 0.95


def test_two_sites_and_the_pooled_rows_reach_the_same(tmp_path: Path) -> None:
    """One full-batch step from the same weights on the same scale: the mean of the sites' steps is the pooled step."""
    north, south = written(tmp_path, ward(40), "north.csv"), written(tmp_path, ward(24, 5), "south.csv")
    declaration = str(declared(tmp_path, QUIET))
    sites = [tabular(declaration, str(path)) for path in (north, south)]
    together = pooled(sites)
    common, step = statistics(together), Plan(steps=1, batch_size=1000, learning_rate=1.0)
    stepped = [
        Trainer(one, common, seed=0).train(initial_weights(one), step, threading.Event()) for one in (*sites, together)
    ]
    rows = [one.examples for one in stepped]
    for name, weights in stepped[2].weights.items():
        mean = (rows[0] * stepped[0].weights[name] + rows[1] * stepped[1].weights[name]) / rows[2]
        np.testing.assert_allclose(weights, mean, atol=1e-6)


def test_one_row_trains_and_holds_out_nothing(tmp_path: Path) -> None:
    x, _, x_test, y_test = tensors(task(tmp_path, "age,sex,died\n50,F,1\n").split(None))
    assert (x.tolist(), x_test.shape, y_test.shape) == ([[0.0, 1.0, 0.0]], (0, 3), (0, 1))
    measures: Mapping[str, Any] = task(tmp_path, "age,sex,died\n50,F,1\n").metrics
    for metric in measures.values():
        assert math.isnan(metric(x_test[:, :1].numpy(), y_test.numpy()))


def test_one_class_trains_and_has_no_area(tmp_path: Path) -> None:
    found = learned(task(tmp_path, "age,sex,died\n" + "50,F,0\n60,M,0\n" * 8))
    assert set(found) == {"rows", "loss", "accuracy", "brier", "calibration"}
    assert found["accuracy"] == 1.0


def test_a_site_without_events_changes_nothing(tmp_path: Path) -> None:
    made = task(tmp_path, "age,days,died\n" + "50,3,0\n60,4,0\n" * 8, SURVIVAL)
    outcome = Trainer(made, None, seed=0).train(initial_weights(made), PLAN, threading.Event())
    assert outcome.weights["weight"].tolist() == [[0.0]]
    assert outcome.loss == 0.0
    assert set(learned(made)) == {"rows", "loss"}


def test_a_column_that_a_site_lacks_moves_no_weight_there(tmp_path: Path) -> None:
    text = QUIET.replace('"number"', '"number"\noptional = true')
    made = task(tmp_path, "sex,died\n" + "F,0\nM,1\n" * 8, text)
    common = FeatureStatistics(np.array([9.0]), np.array([540.0]), np.array([33000.0]))
    outcome = Trainer(made, common, seed=0).train(initial_weights(made), PLAN, threading.Event())
    assert outcome.weights["weight"][0, 0] == 0.0
    assert outcome.weights["weight"][0, 1] < -0.1
    assert statistics(made).to_lists() == [[0.0], [0.0], [0.0]]


def test_a_category_that_a_site_never_saw_moves_no_weight_there(tmp_path: Path) -> None:
    made = task(tmp_path, ward(40).replace(",M,", ",F,"))
    outcome = Trainer(made, None, seed=0).train(initial_weights(made), PLAN, threading.Event())
    assert outcome.weights["weight"][0, 2] == 0.0


def test_times_are_not_rounded_into_ties(tmp_path: Path) -> None:
    _, y, *_ = tensors(task(tmp_path, "age,days,died\n50,100000000,1\n60,100000001,0\n", SURVIVAL).split(None))
    assert y.dtype == torch.float64
    assert y[:, 0].tolist() == [1e8, 1e8 + 1]


def test_histograms_are_measured_unless_the_declaration_says_no(tmp_path: Path) -> None:
    assert set(task(tmp_path, ward(40), SIMPLE).metrics) == {"auc", "accuracy", "brier", "calibration", "scores"}
    assert set(task(tmp_path, ward(40), QUIET).metrics) == {"auc", "accuracy", "brier", "calibration"}
    assert set(task(tmp_path, survivors(40), SURVIVAL).metrics) == {"c_index"}


def test_all_measures_and_the_loss_fit_into_an_update(tmp_path: Path) -> None:
    metrics = task(tmp_path, ward(40), SIMPLE).metrics
    found = {name: metric(np.zeros((2, 1)), np.array([[0.0], [1.0]])) for name, metric in metrics.items()}
    numbers = 1 + sum(len(one) if isinstance(one, dict) else 1 for one in found.values())
    (bound,) = Named.__metadata__  # type: ignore[attr-defined]
    assert numbers <= bound.max_length == 64


def test_the_area_of_a_federation_is_that_of_its_pooled_rows(tmp_path: Path) -> None:
    north, south = written(tmp_path, ward(80), "north.csv"), written(tmp_path, ward(48, 5), "south.csv")
    declaration = str(declared(tmp_path, SIMPLE))
    sites = [tabular(declaration, str(path)) for path in (north, south)]
    together = pooled(sites)
    weight = torch.tensor([[0.7], [0.1], [-0.1]])
    exact, counted = [], []
    for made in (together, *sites):
        _, _, x, y = tensors(made.split(statistics(together)))
        scores, measures = (x @ weight).numpy(), dict[str, Any](made.metrics)
        exact.append(measures["auc"](scores, y.numpy()))
        counted.append(measures["scores"](scores, y.numpy()))
    assert abs(pooled_auc(counted[1:]) - exact[0]) <= pooled_auc_bound(counted[1:])
    assert pooled_auc(counted[1:]) == pooled_auc(counted[:1])


def test_options_come_from_a_sites_settings(tmp_path: Path) -> None:
    options = {"declaration": str(declared(tmp_path, QUIET)), "data": str(written(tmp_path, ward(8))), "seed": 1}
    assert load_task("site_worker.tasks.tabular:tabular", options).name == "icu-logistic-04696a75"
    with pytest.raises(UsageError, match="There is no file"):
        load_task("site_worker.tasks.tabular:tabular", options | {"data": "absent.csv"})
    own = str(declared(tmp_path, 'name = "icu"\ntask = "model.py:sepsis"\n'))
    with pytest.raises(UsageError, match=r"declares the own task 'model.py:sepsis'"):
        load_task("site_worker.tasks.tabular:tabular", options | {"declaration": own})


def test_what_was_left_out_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        task(tmp_path, "age,sex,died\n50,F,1\n60,M,\n")
    assert "1 of 2 rows have no label and were left out" in caplog.text
