"""One pooled task as several sites' tasks: whose row is whose, and what each keeps to be judged on."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Subset, TensorDataset

from broker.errors import UsageError
from site_worker.tasks.divided import divided, features_of, labels_of, with_labels
from site_worker.tasks.task import Split, Task

X = torch.arange(20.0).reshape(10, 2)  # row n is (2n, 2n + 1)
Y = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2, 2])


def task(rows: object = None) -> Task:
    test = TensorDataset(X[:4] + 100, torch.tensor([0, 1, 1, 2]))
    split = Split(TensorDataset(X, Y) if rows is None else rows, test)  # type: ignore[arg-type]
    return Task("t", lambda: nn.Linear(2, 3), lambda _: split, nn.functional.cross_entropy)


def rows_of(part: object) -> set[int]:
    assert isinstance(part, TensorDataset)
    return {int(first) // 2 for first in part.tensors[0][:, 0]}


def test_labels_and_features() -> None:
    assert labels_of(task()).tolist() == Y.tolist()
    assert features_of(task()) == 2


def test_each_site_has_its_rows_and_keeps_a_share_of_them() -> None:
    parts = [np.array([0, 2, 4, 6]), np.array([1, 3, 5, 7, 8, 9])]
    splits = [one.split(None) for one in divided(task(), parts, held_out=0.25, seed=0)]
    assert [(len(one.train), len(one.test)) for one in splits] == [(3, 1), (4, 2)]  # type: ignore[arg-type]
    for part, split in zip(parts, splits, strict=True):
        assert rows_of(split.train) | rows_of(split.test) == set(part.tolist())
        assert not rows_of(split.train) & rows_of(split.test)


def test_rows_keep_their_labels() -> None:
    (one,) = divided(task(), [np.arange(10)], held_out=0.5, seed=3)
    train = one.split(None).train
    assert isinstance(train, TensorDataset)
    x, y = train.tensors
    assert y.tolist() == [int(Y[int(first) // 2]) for first in x[:, 0]]


def test_a_shift_changes_what_a_site_sees_of_its_rows() -> None:
    shift = (np.array([2.0, 1.0]), np.array([0.0, -1.0]))
    (one,) = divided(task(), [np.array([3])] * 1, held_out=0.2, seed=0, shifts=[shift])
    test = one.split(None).test
    assert isinstance(test, TensorDataset)
    assert test.tensors[0].tolist() == [[12.0, 6.0]]  # of (6, 7)


def test_only_the_held_out_rows_of_some_classes() -> None:
    one = with_labels(task(), [1, 7])
    assert one is not None
    test = one.split(None).test
    assert isinstance(test, TensorDataset)
    assert test.tensors[1].tolist() == [1, 1]
    assert with_labels(task(), [7]) is None


def test_rows_that_cannot_be_divided_are_told() -> None:
    with pytest.raises(UsageError, match="are a Subset; only a TensorDataset of x and y can be split"):
        labels_of(task(Subset(TensorDataset(X, Y), [0, 1])))
    with pytest.raises(UsageError, match="labels that are no classes"):
        labels_of(task(TensorDataset(X, torch.linspace(0, 1, 10))))
