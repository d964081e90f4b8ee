"""Pooled rows are the sites' rows, scaled by the sum of their statistics."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from broker.errors import UsageError
from broker.statistics import FeatureStatistics
from site_worker.tasks.pooling import all_rows, pooled
from site_worker.tasks.synthetic import synthetic, tiny
from site_worker.tasks.task import Split, Task
from site_worker.training import Trainer


def test_pooled_rows_are_all_rows_scaled_alike() -> None:
    tasks = [tiny(site=0), tiny(site=1)]
    both = pooled(tasks)
    assert both.statistics is not None
    parts = [task.statistics() for task in tasks if task.statistics]
    summed = FeatureStatistics.summed(parts)
    assert summed is not None
    np.testing.assert_array_equal(both.statistics().total, summed.total)
    trainer = Trainer(both, None, seed=0)
    assert (trainer.examples, trainer.held_out) == (96, 32)
    one = Trainer(tasks[1], summed, seed=0)
    assert (one.examples, one.held_out) == (48, 16)
    seventeenth: Any = both.split(None).test[16]  # type: ignore[index]
    first: Any = tasks[1].split(summed).test[0]  # type: ignore[index]
    np.testing.assert_array_equal(seventeenth[0].numpy(), first[0].numpy())


def test_all_rows_of_a_hospital_that_took_no_part() -> None:
    trainer = Trainer(all_rows(tiny()), None, seed=0)
    assert (trainer.examples, trainer.held_out) == (48, 64)


def test_different_tasks_cannot_be_pooled() -> None:
    with pytest.raises(UsageError, match="Only sites of one task can be pooled, not synthetic, tiny"):
        pooled([tiny(), synthetic(parameters=200)])


def test_loaders_are_pooled_as_one_loader_like_the_first() -> None:
    rows = [TensorDataset(torch.ones(5, 1) * number, torch.ones(5, 1)) for number in range(2)]

    def task(number: int) -> Task:
        loader: DataLoader[Any] = DataLoader(rows[number], batch_size=3, shuffle=True)
        return replace(tiny(), split=lambda _: Split(loader, rows[number]), statistics=None)

    split = pooled([task(0), task(1)]).split(None)
    assert isinstance(split.train, DataLoader)
    assert split.train.batch_size == 3
    assert sorted(x.item() for batch, _ in split.train for x in batch) == [0.0] * 5 + [1.0] * 5
    assert Trainer(pooled([task(0), task(1)]), None, seed=0).held_out == 10
