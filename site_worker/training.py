"""Local training, the same for every task: load weights, take a bounded number of steps, hand back weights.

`weights` map state_dict names to float32 arrays; which of a model's tensors these are: site_worker/model.py. Rows come
in an order that follows from seed and base version, and so does dropout: two runs of a round give the same bits on one
machine (on CUDA, up to the order in which its kernels add).
"""

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from broker.errors import FedqueueError, UsageError
from broker.statistics import FeatureStatistics
from site_worker.batches import Part, part_of
from site_worker.descent import Descent, State, TrainingError
from site_worker.devices import PROCESSOR, Place
from site_worker.model import SiteModel, Weights, initial_weights
from site_worker.noise import drawing
from site_worker.plan import Plan, RefusedPlan
from site_worker.tasks.source import telling
from site_worker.tasks.task import Split, Task
from site_worker.tensors import Tensors

__all__ = ["Keeper", "Outcome", "Plan", "RefusedPlan", "Stopped", "Trainer", "TrainingError", "initial_weights"]


class Stopped(FedqueueError):
    """Training was asked to stop between two steps; what was trained is with the keeper, if there is one."""


@dataclass(frozen=True)
class Outcome:
    """Weights after `steps` steps, or the best of them; the rows trained on; the mean training loss of the steps.

    `weights` are the live model's: copy what must outlast the trainer's next `train` or `evaluate`. `own` are copies
    of the tensors that stay at the site, to be given to the next round.
    """

    weights: dict[str, NDArray[np.float32]]
    steps: int
    examples: int
    loss: float
    own: dict[str, Tensor]


class Keeper(Protocol):
    """Keeps the state of a half-trained round: when one is due, and at once when training is stopped."""

    def due(self) -> bool:
        """Whether the state should be kept now; asked after every step."""

    def keep(self, state: State) -> None:
        """Keep it; a disk that will not have it is no reason to stop training."""


class Trainer:
    """One site's model and rows. Not thread-safe: train and evaluate from one thread at a time.

    `statistics` are the federation's, to scale with. `seed` orders the batches. `step_delay_s` is waited after every
    step, for a hospital whose machine must stay usable, and for demonstrations of a slow one. `model` is the task's, if
    there is one already; it is then this trainer's, or that of several which take turns.
    """

    def __init__(
        self,
        task: Task,
        statistics: FeatureStatistics | None,
        *,
        seed: int,
        step_delay_s: float = 0.0,
        place: Place = PROCESSOR,
        model: SiteModel | None = None,
    ) -> None:
        self._task, self._seed, self._step_delay_s = task, seed, step_delay_s
        with drawing(seed), telling(task.source):
            split = task.split(statistics)
            if not isinstance(split, Split):
                raise UsageError(f"Task {task.name!r} must split into a Split, not a {type(split).__name__}.")
            self._train = part_of(split.train, f"The training rows of task {task.name!r}")
            self._test = part_of(split.test, f"The held-out rows of task {task.name!r}")
        self._model = model or SiteModel(task, place)
        self.examples, self.held_out = self._train.rows, self._test.rows
        if not self.examples:
            raise UsageError(
                f"Task {task.name!r} has no training rows: check the path and the filters in this site's configuration."
            )

    def evaluate(self, weights: Weights, own: Tensors | None = None) -> dict[str, float]:
        """Metrics and "loss" of `weights` on the held-out rows, and how many "rows"; what is not finite is left out.

        `own` are the tensors that stay at the site. A metric that gives a mapping is named metric.key for each key. If
        nothing is held out, there are 0 rows and nothing else.
        """
        self._model.load(weights, own or {})
        self._model.network.eval()
        with torch.no_grad(), drawing(self._seed, device=self._model.place.device), self._telling():
            scored = [(self._model.scores(x), y) for x, y in map(self._model.pair, self._test.ordered())]
            if not scored:
                return {"rows": 0.0}
            scores, labels = (torch.cat(parts) for parts in zip(*scored, strict=True))
            numbers = {"rows": float(len(labels)), "loss": float(self._task.loss(scores, labels))}
            measured = dict(self._measured(scores.cpu().numpy(), labels.cpu().numpy()))
        every = numbers | measured | numbers
        return {name: number for name, number in every.items() if math.isfinite(number)}

    def _measured(self, scores: NDArray[np.floating], labels: NDArray[np.floating]) -> Iterator[tuple[str, float]]:
        for name, metric in self._task.metrics.items():
            value = metric(scores, labels)
            if isinstance(value, Mapping):
                yield from ((f"{name}.{key}", float(one)) for key, one in value.items())
            else:
                yield name, float(value)

    def train(
        self,
        weights: Weights,
        plan: Plan,
        stopping: threading.Event,
        *,
        version: int = 0,
        own: Tensors | None = None,
        kept: State | None = None,
        keeper: Keeper | None = None,
    ) -> Outcome:
        """Train by `plan` from `weights` of `version`, or go on from the state `kept` of that very round, using it up.

        Stopped if `stopping` is set between steps, TrainingError if training diverges, ForeignState if `kept` is of
        another model or plan.
        """
        self._model.load(weights, own or {})
        self._model.network.train()
        train, validation = self._parts(plan)
        descent = Descent(self._model, plan, train, validation, key=(self._seed, version))
        if kept is not None:
            descent.restore(kept)
        try:
            with self._telling():
                self._descend(descent, plan, stopping, keeper)
        finally:
            self._model.network.zero_grad()  # as large as the model, and needed no more
        descent.finish()
        done = descent.progress
        return Outcome(self._model.weights(), done.steps, train.rows, done.loss_sum / done.steps, self._model.own())

    def _telling(self) -> AbstractContextManager[None]:
        """In the middle of a run the hospital's people also need the traceback."""
        return telling(self._task.source, heard="task-failed")

    def _parts(self, plan: Plan) -> tuple[Part, Part | None]:
        """What is trained on, and what early stopping looks at; of a single row nothing can be set aside."""
        if not plan.patience or self.examples < 2:
            return self._train, None
        with drawing(self._seed), telling(self._task.source):
            return self._train.divided(self._seed)

    def _descend(self, descent: Descent, plan: Plan, stopping: threading.Event, keeper: Keeper | None) -> None:
        while not descent.over:
            if stopping.is_set():
                if keeper is not None:
                    keeper.keep(descent.state())
                raise Stopped(f"Training stopped before step {descent.progress.steps + 1} of {plan.steps}.")
            descent.step()
            if keeper is not None and keeper.due():
                keeper.keep(descent.state())
            if self._step_delay_s:
                stopping.wait(self._step_delay_s)
