"""One pooled task as N sites' tasks: each with some of its training rows, of which it keeps a few for itself.

For simulations: which rows go where is decided by deploy/simulation/split.py. What the pooled task holds out is no
site's, and stays what all models are compared on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import TensorDataset

from broker.errors import UsageError
from site_worker.tasks.task import Rows, Split, Task

Numbers = NDArray[np.int64]
Shift = tuple[NDArray[np.float64], NDArray[np.float64]]  # what features are multiplied with, and what is added then


def train_on_one_thread() -> None:
    """Small models are slower on several, and several runs share the processors."""
    torch.set_num_threads(1)


def labels_of(task: Task) -> Numbers:
    """The class of each training row."""
    _, y = _tensors(_whole(task).train, task)
    if y.is_floating_point() and not torch.equal(y, y.round()):
        raise UsageError(f"Task {task.name!r} has labels that are no classes; choose another split than by label.")
    return y.reshape(len(y), -1)[:, 0].numpy().astype(np.int64)


def features_of(task: Task) -> int:
    """How many numbers describe a row."""
    x, _ = _tensors(_whole(task).train, task)
    return int(x[0].numel())


def divided(
    task: Task, parts: Sequence[Numbers], *, held_out: float, seed: int, shifts: Sequence[Shift] = ()
) -> list[Task]:
    """A task a part: `held_out` is the share of its rows that a site keeps to be judged on, at least one."""
    x, y = _tensors(_whole(task).train, task)
    tasks = []
    for number, part in enumerate(parts):
        order = torch.from_numpy(np.random.default_rng([seed, 2, number]).permutation(part))
        kept = max(1, round(len(part) * held_out))
        seen = _shifted(x[order], shifts[number]) if shifts else x[order]
        split = Split(TensorDataset(seen[kept:], y[order][kept:]), TensorDataset(seen[:kept], y[order][:kept]))
        tasks.append(_with(task, split))
    return tasks


def with_labels(task: Task, labels: Iterable[int]) -> Task | None:
    """The task with those held-out rows alone that are of these classes, None if it has none."""
    whole = _whole(task)
    x, y = _tensors(whole.test, task)
    wanted = torch.isin(y.reshape(len(y), -1)[:, 0].long(), torch.tensor(sorted(labels)))
    if not bool(wanted.any()):
        return None
    return _with(task, Split(whole.train, TensorDataset(x[wanted], y[wanted])))


def _with(task: Task, split: Split) -> Task:
    return replace(task, split=lambda _: split, statistics=None)


def _whole(task: Task) -> Split:
    """The rows on the pooled task's own scale."""
    return task.split(task.statistics() if task.statistics else None)


def _tensors(rows: Rows, task: Task) -> tuple[Tensor, Tensor]:
    if not isinstance(rows, TensorDataset) or len(rows.tensors) != 2:
        kind = type(rows).__name__
        raise UsageError(f"The rows of task {task.name!r} are a {kind}; only a TensorDataset of x and y can be split.")
    x, y = rows.tensors
    return x, y


def _shifted(x: Tensor, shift: Shift) -> Tensor:
    scale, offset = (torch.tensor(one, dtype=x.dtype).reshape(x.shape[1:]) for one in shift)
    shifted: Any = x * scale + offset
    return shifted  # type: ignore[no-any-return]
