"""What strategies are compared on, and how a run is judged: for tests/benchmarks/strategies.py.

Ten sites, digits and breast cancer divided by label (Dirichlet .3), speeds log-normal or Pareto, and the site with the
most classes of its own away for the middle half of sixty rounds of the median site. All arms meet the same sites,
splits and absences. The target is 97 % of what the pooled rows give, reached and held over the next three rounds of the
median site.
"""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import msgspec

from deploy.simulation.crew import run_jobs
from deploy.simulation.job import Job
from deploy.simulation.result import Point, Result
from deploy.simulation.scenario import Scenario, parse
from site_worker.plan import Plan
from site_worker.tasks.task import load_task
from site_worker.training import Trainer, initial_weights

ROUNDS: Final = 60.0  # seconds: the median site takes one for a round
NEVER: Final = 10 * ROUNDS
HELD_S: Final = 3.0
TARGET: Final = 0.97
REPORTED, TUNED = range(8), range(100, 103)
RATES: Final = {"digits": 0.15, "breast_cancer": 0.06}
SPEEDS: Final = {"log-normal": ("log-normal", 0.05), "pareto": ("pareto", 0.025)}
SCENARIO: Final = """
title = "{task}, Dirichlet {alpha}, {kind} speeds"
codec = "int8"
presence_s = 0.5
probe_s = 20.0
[task]
name = "site_worker.tasks.open_data:{task}"
options = {{hidden = {hidden}}}
[sites]
number = 10
split = "dirichlet"
alpha = {alpha}
[speeds]
kind = "{kind}"
seconds = {seconds}
sigma = 1.0
shape = 1.1
jitter = 0.15
[[absences]]
who = "most-label-unique"
from_s = {away}
to_s = {back}
how = "offline"
[links]
latency_s = 0.005
[plan]
steps = 20
batch_size = 32
learning_rate = {rate}
[aggregation]
max_wait_s = 1e6
[stop]
seconds = {stop}
"""
DEFAULT: Final[dict[str, dict[str, Any]]] = {"default": {}}
WAITING: Final[dict[str, dict[str, Any]]] = {
    f"wait-for-all rate={rate:g}": {"strategy": "fedavg", "server_rate": rate} for rate in (1.0, 2.0, 3.0, 5.0)
}
DEADLINES: Final[dict[str, dict[str, Any]]] = {
    f"deadline={deadline:g} rate={rate:g} late {late}": {
        "strategy": "fedavg",
        "deadline_s": deadline,
        "server_rate": rate,
        "max_staleness": 0 if late == "dropped" else None,
    }
    for late, deadlines in (("dropped", (0.5, 1.0, 2.0, 4.0)), ("merged", (0.25, 0.5, 1.0, 2.0)))
    for deadline, rate in product(deadlines, (1.0, 2.0, 3.0, 5.0))
}
FEDBUFF: Final[dict[str, dict[str, Any]]] = {
    f"fedbuff K={size} rate={rate:g} {staleness}": {
        "strategy": "fedbuff",
        "buffer_size": size,
        "server_rate": rate,
        "staleness": staleness,
    }
    for size, rate, staleness in product((1, 2, 3, 5, 7), (0.5, 1.0, 2.0), ("constant", "polynomial"))
}
OTHERS: Final[dict[str, dict[str, Any]]] = {
    "fedasync polynomial": {"strategy": "fedasync"},
    "fedasync-mixing polynomial": {"strategy": "fedasync-mixing", "server_rate": 0.3},
    "ca2fl rate=0.5": {"strategy": "ca2fl", "server_rate": 0.5},
    "calibrated": {"strategy": "calibrated"},
}
EVERY: Final = DEFAULT | WAITING | DEADLINES | FEDBUFF | OTHERS


@dataclass(frozen=True)
class Cell:
    """One data set, one kind of speeds, one split."""

    task: str
    speeds: str
    alpha: float = 0.3
    hidden: int = 32

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.task}, {self.speeds}, Dirichlet {self.alpha:g}, {self.hidden} hidden"

    def scenario(self, *, stop: float = ROUNDS) -> Scenario:
        """The scenario with every arm as a strategy."""
        kind, seconds = SPEEDS[self.speeds]
        text = SCENARIO.format(
            task=self.task, alpha=self.alpha, hidden=self.hidden, kind=kind, seconds=seconds,
            away=ROUNDS / 4, back=3 * ROUNDS / 4, rate=RATES[self.task], stop=stop,
        )  # fmt: skip
        return msgspec.structs.replace(parse(text, Path("strategies.toml")), strategies=EVERY)


@dataclass(frozen=True)
class Measured:
    """One run: when the target was reached and held, accuracy at the end, and on the absent site's classes meanwhile.

    `worst_site` is the accuracy at the end at the site where it is lowest, on its own rows.
    """

    reached_s: float
    final: float
    away: float
    worst_site: float
    sound: bool


@cache
def pooled(task: str, hidden: int) -> float:
    """Accuracy of the pooled rows in one place."""
    whole = load_task(f"site_worker.tasks.open_data:{task}", {"hidden": hidden})
    trainer = Trainer(whole, None, seed=0)
    plan = Plan(steps=4000, batch_size=32, learning_rate=RATES[task] / 3)
    outcome = trainer.train(initial_weights(whole), plan, threading.Event())
    return trainer.evaluate(outcome.weights)["accuracy"]


def measured(result: Result, target: float) -> Measured:
    """The figures of a run."""
    late = [point for point in result.curve if point.seconds >= 0.9 * result.seconds] or result.curve[-1:]
    return Measured(
        _held(result.curve, target, result.seconds),
        fmean(point.value for point in late),
        float("nan") if result.away is None else result.away,
        result.own[result.worst],
        result.sound,
    )


def _held(curve: Sequence[Point], target: float, end: float) -> float:
    """When the curve first reaches the target and is there on average over the next HELD_S seconds too."""
    for place, point in enumerate(curve):
        if point.value >= target:
            following = [one for one in curve[place:] if one.seconds <= point.seconds + HELD_S]
            ends = [one.seconds for one in following[1:]] + [min(point.seconds + HELD_S, end)]
            spans = [max(until - one.seconds, 1e-9) for one, until in zip(following, ends, strict=True)]
            mean = sum(one.value * span for one, span in zip(following, spans, strict=True)) / sum(spans)
            if mean >= target:
                return point.seconds
    return NEVER


def run(cell: Cell, arms: Sequence[str], seeds: Sequence[int]) -> dict[str, list[Measured]]:
    """Every arm with every seed; those that wait get ten times as long."""
    jobs = [
        Job("strategies", cell.scenario(stop=NEVER if arm.startswith("wait") else ROUNDS), arm, seed)
        for arm in arms
        for seed in seeds
    ]
    target = TARGET * pooled(cell.task, cell.hidden)
    results = run_jobs(jobs, processes=os.cpu_count() or 1, stopping=threading.Event())
    found: dict[str, list[Measured]] = {arm: [] for arm in arms}
    for job, result in zip(jobs, results, strict=True):
        found[job.strategy].append(measured(result, target))
    return found
