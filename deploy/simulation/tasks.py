"""Real training in a simulation: a task divided among sites, trained by the site worker's own LocalRounds in torch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from broker.errors import UsageError
from broker.statistics import FeatureStatistics
from broker.weights import Layout
from deploy.history import leading_metric
from deploy.simulation import split
from deploy.simulation.learning import Vector
from deploy.simulation.scenario import Scenario, TaskTable
from site_worker.rounds import LocalRounds
from site_worker.settings import Settings
from site_worker.tasks.divided import divided, features_of, labels_of, train_on_one_thread, with_labels
from site_worker.tasks.pooling import pooled
from site_worker.tasks.task import Task, load_task
from site_worker.training import Trainer, initial_weights


class TaskLearning:
    """A Learning of real rows. `common` is the task whose held-out rows all models are compared on."""

    def __init__(
        self,
        tasks: Mapping[str, Task],
        common: Task,
        *,
        seed: int,
        unique: Mapping[str, float] | None = None,
        labels: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self._tasks, self._common, self._seed = tasks, common, seed
        self.name, self.names = common.name, tuple(tasks)
        weights = initial_weights(common, seed=seed)
        self.layout = Layout.of(weights)
        self.initial: Vector = self.layout.flatten(weights)
        self.unique, self._labels = unique or {}, labels or {}
        self.metric = leading_metric(common.metrics)
        self._statistics: FeatureStatistics | None = None
        self._judges: dict[str, Trainer | None] = {}

    @classmethod
    def of(cls, scenario: Scenario, seed: int) -> "TaskLearning":
        """The scenario's task, divided by the seed."""
        assert scenario.task is not None
        train_on_one_thread()
        names, sites = scenario.names, scenario.sites
        if sites.split == "natural":
            tasks = _natural(scenario.task, names, sites.options)
            return cls(tasks, pooled(list(tasks.values())), seed=seed)
        whole = load_task(scenario.task.name, scenario.task.options)
        labels, random = labels_of(whole), np.random.default_rng([seed, 3])
        parts = _parts(scenario, labels, random)
        moved = split.shifts(len(names), features_of(whole), random, amount=sites.shift)
        shifts = moved if sites.split == "features" else ()
        divisions = divided(whole, parts, held_out=sites.held_out, seed=seed, shifts=shifts)
        unique = dict(zip(names, split.uniqueness(labels, parts), strict=True))
        own = {name: split.own_labels(labels, parts, number) for number, name in enumerate(names)}
        return cls(dict(zip(names, divisions, strict=True)), whole, seed=seed, unique=unique, labels=own)

    def rounds(self, site: str) -> LocalRounds:
        """The site worker's own, without a folder."""
        settings = Settings(site=site, task="simulated", seed=self._seed * 1000 + self.names.index(site), device="cpu")
        return LocalRounds(settings, self._tasks[site], folder=None)

    def use_statistics(self, statistics: list[list[float]]) -> None:
        """See `Learning`."""
        self._statistics = FeatureStatistics.from_lists(statistics) if statistics else None

    def measures(self, model: Vector) -> dict[str, float]:
        """See `Learning`."""
        found = self._evaluated("common", self._common, model)
        if self.metric not in found:
            raise UsageError(f"Task {self.name!r} gives no {self.metric} here; are any of its rows held out?")
        return found

    def own(self, model: Vector) -> dict[str, float]:
        """See `Learning`."""
        found = {site: self._evaluated(f"own {site}", task, model) for site, task in self._tasks.items()}
        return {site: one[self.metric] for site, one in found.items() if self.metric in one}

    def of_site(self, model: Vector, site: str) -> float | None:
        """See `Learning`."""
        key = f"classes {site}"
        if key not in self._judges:
            task = with_labels(self._common, self._labels[site]) if site in self._labels else self._tasks[site]
            self._judges[key] = None if task is None else Trainer(task, self._statistics, seed=0)
        judge = self._judges[key]
        return None if judge is None else judge.evaluate(self.layout.unflatten(model)).get(self.metric)

    def _evaluated(self, key: str, task: Task, model: Vector) -> dict[str, float]:
        judge = self._judges.get(key)
        if judge is None:
            judge = self._judges[key] = Trainer(task, self._statistics, seed=0)
        return judge.evaluate(self.layout.unflatten(model))


def _natural(table: TaskTable, names: Sequence[str], options: Sequence[dict[str, Any]]) -> dict[str, Task]:
    return {name: load_task(table.name, table.options | own) for name, own in zip(names, options, strict=True)}


def _parts(scenario: Scenario, labels: split.Numbers, random: split.Random) -> list[split.Numbers]:
    sites = scenario.sites
    match sites.split:
        case "dirichlet":
            return split.dirichlet(labels, sites.number, random, alpha=sites.alpha)
        case "quantity":
            return split.quantity(len(labels), sites.number, random, skew=sites.skew)
        case _:
            return split.even(len(labels), sites.number, random)
