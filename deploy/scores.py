"""How good the models of a run are: the federated one at every site, and beside it each site alone and all rows pooled.

Every number is of held-out rows, which no model was trained or scaled on. A site alone scales everybody with its own
statistics, as it would in life. Names of measures are those of the task, "loss" and "rows" beside them.

Where tensors stay at the sites, there is no one federated model: each site is judged with its own tensors, and in place
of all rows at once stands the mean over the sites by rows.
"""

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from broker.histograms import histogram_of, pooled_auc, pooled_calibration, without_histogram
from broker.statistics import FeatureStatistics
from deploy.watching import StoppedError
from site_worker.plan import Plan
from site_worker.tasks.pooling import all_rows, pooled
from site_worker.tasks.task import Task
from site_worker.tensors import Tensors
from site_worker.training import Stopped, Trainer, initial_weights

Weights = Mapping[str, NDArray[np.float32]]
Measures = dict[str, float]

MOST_STEPS: Final = 2000


@dataclass(frozen=True)
class Model:
    """A model as a run leaves it: shared weights, the federation's statistics, and by site the tensors of its own."""

    weights: Weights
    statistics: FeatureStatistics | None
    own: Mapping[str, Tensors] = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """`sites`: the federated model at each; `mean` of these by rows; `pooled`: on the held-out rows of all at once.

    `histograms` is what a coordinator learns from the sites' sums alone. `compared` has "NY alone", "federated",
    "pooled" on the rows of all sites, `left_out` the same for each hospital that took no part.
    """

    sites: Mapping[str, Measures]
    mean: Measures
    pooled: Measures
    histograms: Measures
    compared: Mapping[str, Measures] = field(default_factory=dict)
    left_out: Mapping[str, Mapping[str, Measures]] = field(default_factory=dict)


def score(model: Model, tasks: Mapping[str, Task]) -> Scores:
    """The federated model at every site."""
    raw = {name: _evaluated(model, task, model.own.get(name)) for name, task in tasks.items()}
    counts = [histogram for one in raw.values() if (histogram := histogram_of(one)) is not None]
    sites = {name: without_histogram(one) for name, one in raw.items()}
    mean = _mean(sites.values())
    own = any(task.local for task in tasks.values())
    return Scores(
        sites=sites,
        mean=mean,
        pooled=mean if own else without_histogram(_evaluated(model, pooled(list(tasks.values())))),
        histograms={"auc": pooled_auc(counts), "calibration": pooled_calibration(counts)} if counts else {},
    )


@dataclass(frozen=True)
class Effort:
    """How models beside the federated one are trained: `rounds` times the plan's steps, at most MOST_STEPS.

    Without the plan's `proximal`: it would hold them at the model that all begin with, which is nobody's.
    `tell` is told which is being trained; training ends with StoppedError when `stopping` is set.
    """

    plan: Plan
    rounds: int
    seed: int
    stopping: threading.Event = field(default_factory=threading.Event)
    tell: Callable[[str], object] = lambda _: None

    def model_of(self, task: Task) -> tuple[Model, Tensors]:
        """A model of one place's rows, with the tensors of its own, scaled by its own statistics."""
        statistics = task.statistics() if task.statistics else None
        plan = replace(self.plan, steps=min(MOST_STEPS, self.plan.steps * max(1, self.rounds)), proximal=0.0)
        try:
            trained = Trainer(task, statistics, seed=self.seed).train(initial_weights(task), plan, self.stopping)
        except Stopped as error:
            raise StoppedError("stopped") from error
        return Model(trained.weights, statistics), trained.own


def compare(scores: Scores, tasks: Mapping[str, Task], effort: Effort) -> Scores:
    """The same with every site alone and all rows pooled."""
    together = pooled(list(tasks.values()))
    effort.tell(f"For comparison: training {len(tasks)} sites alone, and all rows pooled ...")
    alone = {f"{name} alone": _of_one_place(task, together, effort) for name, task in tasks.items()}
    of_all = _of_one_place(together, together, effort)
    return replace(scores, compared={**alone, "federated": scores.pooled, "pooled": of_all})


def leave_out(model: Model, name: str, task: Task, effort: Effort) -> dict[str, Measures]:
    """The model at a hospital that took no part: on all its rows, and on its held-out rows beside its own model."""
    return {
        f"all rows of {name}, federated without it": without_histogram(_evaluated(model, all_rows(task))),
        f"held-out rows of {name}, federated without it": without_histogram(_evaluated(model, task)),
        f"held-out rows of {name}, {name} alone": _of_one_place(task, task, effort),
    }


def _evaluated(model: Model, task: Task, own: Tensors | None = None) -> Measures:
    return Trainer(task, model.statistics, seed=0).evaluate(model.weights, own)


def _of_one_place(task: Task, judge: Task, effort: Effort) -> Measures:
    """Trained on the rows of `task`, judged on the held-out rows of `judge`."""
    model, own = effort.model_of(task)
    return without_histogram(_evaluated(model, judge, own))


def _mean(sites: Iterable[Measures]) -> Measures:
    """Mean by held-out rows over the sites that have the measure; "rows" is their sum."""
    listed: Sequence[Measures] = list(sites)
    names = dict.fromkeys(name for one in listed for name in one if name != "rows")
    mean = {name: _weighted([(one[name], one["rows"]) for one in listed if name in one]) for name in names}
    return {"rows": sum(one.get("rows", 0.0) for one in listed), **mean}


def _weighted(pairs: Sequence[tuple[float, float]]) -> float:
    total = sum(rows for _, rows in pairs)
    return sum(value * rows for value, rows in pairs) / total if total else math.nan
