"""Strategies side by side: medians over seeds, with the smallest and the largest; for people, and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from rich.table import Table

from broker.errors import UsageError
from deploy.simulation.result import Result, low_is_good, median, spread, staleness_at
from deploy.simulation.scenario import Scenario

Values = Sequence[float | None]


@dataclass(frozen=True)
class Figure:
    """One figure of several runs: how it is called, its value in each, and how it is written."""

    name: str
    values: Values
    unit: str = ""

    def text(self, value: float | None) -> str:
        """One value."""
        if value is None:
            return "never" if self.unit == "s" else "-"
        match self.unit:
            case "s":
                return _short_span(value)
            case "MB":
                return f"{value / 1e6:.3g}"
            case "n":
                return f"{value:,.0f}".replace(",", " ")
            case "v":
                return f"{value:.1f}"
            case _:
                return f"{value:.3f}"

    @property
    def middle(self) -> str:
        """The median."""
        return self.text(median(self.values))

    @property
    def ends(self) -> str:
        """The smallest and the largest, "" of a single run."""
        if len(self.values) < 2:
            return ""
        low, high = spread(self.values)
        first, last = self.text(low), self.text(high)
        unit = last.rpartition(" ")[2]
        return last if first == last else f"{first.removesuffix(f' {unit}')}-{last}"


def _short_span(seconds: float) -> str:
    """In one unit, so that two of them can be compared at a glance."""
    for most, divisor, unit in ((180, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < most:
            return f"{seconds / divisor:.3g} {unit}"
    return f"{seconds / 86_400:.3g} d"


def strategies_of(scenario: Scenario, compare: str) -> list[str]:
    """The strategies that are asked for: "" is [aggregation] as it is, "all" every one that the scenario names."""
    if compare == "all" and scenario.strategies:
        return list(scenario.strategies)
    names = [name.strip() for name in compare.split(",")] if compare else [""]
    if len(set(names)) != len(names) or (compare and "" in names):
        raise UsageError(f"--compare {compare}: name each strategy once, such as --compare fedbuff,fedasync.")
    for name in names:
        scenario.rule(name)
    return names


def by_strategy(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The runs of each strategy, in the order of the seeds."""
    found: dict[str, list[Result]] = {}
    for one in results:
        found.setdefault(one.strategy, []).append(one)
    return found


def figures(runs: Sequence[Result]) -> list[Figure]:
    """Everything that is compared, of the runs of one strategy."""
    metric = runs[0].metric
    found = [
        Figure(metric, [one.value for one in runs]),
        Figure("to target", [one.reached_s for one in runs], "s"),
        Figure("worst site", [one.own[one.worst] for one in runs]),
        Figure("the absent", [one.away for one in runs]),
        Figure("stale", [one.mean_staleness for one in runs], "v"),
        Figure("updates", [one.updates for one in runs], "n"),
        Figure("MB up", [one.bytes_up for one in runs], "MB"),
    ]
    return [one for one in found if one.name != "the absent" or any(value is not None for value in one.values)]


def table(scenario: Scenario, results: Sequence[Result]) -> Table:
    """A row a strategy."""
    shown = by_strategy(results)
    first = figures(results)
    grid = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    grid.add_column("strategy", no_wrap=True)
    for one in first:
        grid.add_column(one.name, justify="right", no_wrap=True)
    for name, runs in shown.items():
        cells = figures(runs)
        known = {one.name: one for one in cells}
        row = [known.get(one.name, Figure(one.name, [None])) for one in first]
        if scenario.target is None:
            row = [Figure(one.name, [None]) if one.name == "to target" else one for one in row]
        grid.add_row(title_of(name), *(_cell(one) for one in row))
    return grid


def _cell(one: Figure) -> str:
    return f"{one.middle}\n[dim]{one.ends}[/dim]" if one.ends else one.middle


def title_of(strategy: str) -> str:
    """How a strategy is called."""
    return strategy or "as in [aggregation]"


def sentences(scenario: Scenario, results: Sequence[Result]) -> list[str]:
    """What the table's words mean, and whether the books close."""
    one = results[0]
    good = "low" if low_is_good(one.metric) else "high"
    said = [f"{one.metric} ({good} is good) of the last model on rows that no site has; worst site: on its own rows."]
    if scenario.target is not None:
        said.append(f"To target: virtual time until {one.metric} was {scenario.target.value:g} for the first time.")
    if any(run.away is not None for run in results):
        said.append(f"The absent: {one.metric} on what the absent sites know best, while they were away.")
    unsound = [run for run in results if not run.sound]
    sent = sum(run.ledger.sent for run in results)
    if unsound:
        said += [f"NOT OK: {title_of(run.strategy)}, seed {run.seed}: {run.ledger.line}." for run in unsound]
    else:
        said.append(f"Of {sent:,} updates none was lost or counted twice; every journal replays bit for bit.")
    return said


def to_json(scenario: Scenario, name: str, results: Sequence[Result]) -> bytes:
    """Every figure of every run, and the medians."""
    summary = {
        title_of(strategy): {
            one.name: {"median": median(one.values), "values": list(one.values)} for one in figures(runs)
        }
        for strategy, runs in by_strategy(results).items()
    }
    values: dict[str, Any] = {
        "scenario": name,
        "title": scenario.title,
        "metric": results[0].metric,
        "target": None if scenario.target is None else scenario.target.value,
        "strategies": summary,
        "staleness_p90": {title_of(run.strategy): staleness_at(run.staleness, 0.9) for run in results},
        "runs": results,
    }
    return msgspec.json.format(msgspec.json.encode(values), indent=2)
