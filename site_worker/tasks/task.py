"""A task: what a hospital describes so that its rows can train the federation's model.

A task is a function in a module that the hospital installed and named in its own configuration, as "module:function"
with options. The wire carries a task's name to compare, never code. The function takes plain options and returns a
`Task`; `site_worker.tasks.synthetic.tiny` is a complete one to start from.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from broker.errors import UsageError
from broker.statistics import FeatureStatistics

Array = NDArray[np.floating]
Rows = Dataset[tuple[Tensor, ...]]


@dataclass(frozen=True)
class Split:
    """A site's rows as (x, y) tensors; `test` is held out: it is evaluated on, and enters nothing else."""

    train: Rows
    test: Rows


@dataclass(frozen=True)
class Task:
    """Model, data and measures of one site. `name` must be the same at all sites of a federation.

    `split` gets the federation's statistics to scale with, None for the site's own or none at all.
    `loss` is (scores, labels) -> mean over the rows; scores are what the model returns for x.
    `metrics` are (scores, labels) -> number on all held-out rows; a number that is not finite is left out.
    `statistics` sums this site's training rows, None if the task needs no common scale.
    """

    name: str
    model: Callable[[], nn.Module]
    split: Callable[[FeatureStatistics | None], Split]
    loss: Callable[[Tensor, Tensor], Tensor]
    metrics: Mapping[str, Callable[[Array, Array], float]]
    statistics: Callable[[], FeatureStatistics] | None = None


def load_task(spec: str, options: Mapping[str, Any]) -> Task:
    """The task that "module:function" makes of `options`; UsageError says what is wrong with either."""
    function = _function(spec)
    try:
        inspect.signature(function).bind(**options)
    except TypeError as error:
        raise UsageError(f"Task {spec!r} does not take these options: {error}.") from error
    task = function(**options)
    if not isinstance(task, Task):
        raise UsageError(f"Task {spec!r} returns a {type(task).__name__}; let it return a site_worker.tasks.task.Task.")
    return task


def _function(spec: str) -> Callable[..., object]:
    module_name, _, name = spec.partition(":")
    if not module_name or module_name.startswith(".") or not name:
        raise UsageError(f"Task {spec!r} must be written as module:function, such as hospital.tasks:sepsis.")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(
            f"Task {spec!r} cannot be imported ({error}); install it or add its folder to PYTHONPATH."
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError(f"Task {spec!r} names no function: module {module_name} has no {name!r} that can be called.")
    made: Callable[..., object] = function
    return made
