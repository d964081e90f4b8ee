"""A task: what a hospital describes so that its rows can train the federation's model.

A task is a function in a file or module of the hospital, named in its own configuration with options: see
site_worker/tasks/source.py. The wire carries a task's name to compare, never code. The function takes plain options
and returns a `Task`; docs/tasks.md begins with a complete one.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from broker.errors import UsageError
from broker.statistics import FeatureStatistics
from site_worker.tasks.source import defined_at, function_of, telling

Array = NDArray[np.floating]
Rows = Dataset[Any] | DataLoader[Any]
Measure = Callable[[Array, Array], float | Mapping[str, float]]


@dataclass(frozen=True)
class Split:
    """A site's rows as (x, y) pairs; `test` is held out: it is evaluated on, and enters nothing else.

    Each is a map-style Dataset, of which the plan says how many rows make a batch, or a DataLoader, whose own batches
    and collating are used: the plan's batch_size is not. `test` may be empty.
    """

    train: Rows
    test: Rows


@dataclass(frozen=True)
class Task:
    """Model, data and measures of one site. `name` must be the same at all sites of a federation.

    `split` gets the federation's statistics to scale with, None for the site's own or none at all.
    `loss` is (scores, labels) -> mean over the rows; scores are what the model returns for x.
    `metrics` are (scores, labels) -> a number, or a mapping of names to numbers, on all held-out rows; a number that is
    not finite is left out.
    `statistics` sums this site's training rows, None if the task needs no common scale.
    `local` are shell patterns of state_dict names that stay at the site: see site_worker/model.py.
    `source` is the file the task is written in, for sentences about mistakes in it; `load_task` fills it in.
    """

    name: str
    model: Callable[[], nn.Module]
    split: Callable[[FeatureStatistics | None], Split]
    loss: Callable[[Tensor, Tensor], Tensor]
    metrics: Mapping[str, Measure] = field(default_factory=dict)
    statistics: Callable[[], FeatureStatistics] | None = None
    local: tuple[str, ...] = ()
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.local, str):
            raise UsageError(f"Task {self.name!r}: local must be a tuple of patterns, such as ({self.local!r},).")


def load_task(spec: str, options: Mapping[str, Any], *, base: Path | None = None) -> Task:
    """The task that "file.py:function" or "module:function" makes of `options`; UsageError says what is wrong.

    `base` is the site's folder, where a file is looked for first.
    """
    function, source = function_of(spec, base)
    try:
        inspect.signature(function).bind(**options)
    except TypeError as error:
        raise UsageError(f"Task {spec!r} does not take these options: {error}{defined_at(function)}.") from error
    with telling(source):
        task = function(**options)
    if not isinstance(task, Task):
        raise UsageError(
            f"Task {spec!r} returns a {type(task).__name__}; let it return a site_worker.Task{defined_at(function)}."
        )
    return replace(task, source=source)
