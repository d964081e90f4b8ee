"""What runs of a cohort came to: tables for people, figures for programs, and the spread over repeats."""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from deploy.history import Ledger, printable
from deploy.scores import Measures, Scores

ALONE: Final = " alone"
LISTED: Final = 12  # more sites than that are summed up in one row
LEADING_COLUMNS: Final = ("auc", "c_index", "accuracy", "brier", "calibration")


@dataclass(frozen=True)
class Result:
    """One run. `refused` are the sites whose files did not fit, with the reason; `left_out` took no part on purpose."""

    seed: int
    left_out: str | None
    metric: str
    versions: int
    seconds: float
    scores: Scores
    ledger: Ledger
    replayed: bool
    refused: Mapping[str, str]

    @property
    def table(self) -> list[tuple[str, float]]:
        """What the report compares by the leading metric."""
        compared = self.scores.compared or {"federated": self.scores.pooled}
        return [(name, measures[self.metric]) for name, measures in compared.items() if self.metric in measures]

    def lines(self) -> list[str]:
        """For people."""
        mean = {"mean by rows": self.scores.mean}
        lines = ["The federated model on each site's own held-out rows:", *tabulated(self.scores.sites, mean, "")]
        compared = self.scores.compared or {"federated": self.scores.pooled}
        alone = {name: one for name, one in compared.items() if name.endswith(ALONE)}
        others = {name: one for name, one in compared.items() if name not in alone}
        lines += ["On the held-out rows of all sites together:", *tabulated(alone, others, ALONE)]
        if self.scores.histograms:
            told = ", ".join(f"{name} {value:.3f}" for name, value in self.scores.histograms.items())
            lines.append(f"From the sites' score histograms alone: {told}.")
        for rows in self.scores.left_out.values():
            lines += [f"At {self.left_out}, which took no part:", *tabulated({}, rows, "")]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Every figure."""
        plain = asdict(self)
        plain["ledger"] = asdict(self.ledger)
        plain["replay_same"] = plain.pop("replayed")
        return plain


def to_json(results: Sequence[Result], *, name: str, task: str) -> str:
    """For programs: every run, and the spread of every compared figure over the repeats."""
    whole = {
        "federation": name,
        "task": task,
        "metric": results[0].metric,
        "runs": [result.to_dict() for result in results],
        "spread": spread(results),
    }
    return json.dumps(_finite(whole), indent=2)


def spread(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Mean, standard deviation, least and greatest of each compared figure over the runs that have it."""
    values: dict[str, list[float]] = {}
    for result in results:
        for name, value in _figures(result):
            values.setdefault(name, []).append(value)
    return {
        name: {
            "mean": statistics.fmean(found),
            "sd": statistics.stdev(found) if len(found) > 1 else 0.0,
            "min": min(found),
            "max": max(found),
            "runs": len(found),
        }
        for name, found in values.items()
    }


def spread_lines(results: Sequence[Result]) -> list[str]:
    """The spread, for people."""
    metric = results[0].metric
    rows = [
        f"  {printable(name):<40} {one['mean']:.3f} +- {one['sd']:.3f}   ({one['min']:.3f} to {one['max']:.3f})"
        for name, one in spread(results).items()
    ]
    return [f"{metric} over {len(results)} runs, mean +- standard deviation (least to greatest):", *rows]


def tabulated(sites: Mapping[str, Measures], others: Mapping[str, Measures], what: str) -> list[str]:
    """A line a row and a column a measure; of many `sites` only their mean, least and greatest (`what` of them)."""
    rows = {**(_summed_up(sites, what) if len(sites) > LISTED else sites), **others}
    columns = _columns(rows.values())
    width = max(map(len, rows), default=0)
    head = f"  {'':<{width}} {'rows':>8}" + "".join(f"{name[:12]:>13}" for name in columns)
    return [head, *(_row(name, one, columns, width) for name, one in rows.items())]


def _row(name: str, measures: Measures, columns: Sequence[str], width: int) -> str:
    cells = "".join(f"{measures[one]:>13.3f}" if one in measures else f"{'-':>13}" for one in columns)
    return f"  {printable(name):<{width}} {int(measures.get('rows', 0)):>8}{cells}"


def _columns(rows: Iterable[Measures]) -> list[str]:
    names = dict.fromkeys(name for one in rows for name in one if name != "rows")
    return [*(name for name in LEADING_COLUMNS if name in names), *(n for n in names if n not in LEADING_COLUMNS)][:6]


def _summed_up(rows: Mapping[str, Measures], what: str) -> dict[str, Measures]:
    names = dict.fromkeys(name for one in rows.values() for name in one)
    columns = {name: [one[name] for one in rows.values() if name in one] for name in names}
    label = f"{len(rows)} sites{what}"
    return {
        f"{label}, mean": {name: statistics.fmean(values) for name, values in columns.items()},
        f"{label}, least": {name: min(values) for name, values in columns.items()},
        f"{label}, greatest": {name: max(values) for name, values in columns.items()},
    }


def _figures(result: Result) -> Iterable[tuple[str, float]]:
    """Compared figures by the leading metric; the sites alone as their mean."""
    table = dict(result.table)
    alone = [value for name, value in table.items() if name.endswith(ALONE)]
    if alone:
        yield "alone (mean)", statistics.fmean(alone)
    yield from ((name, value) for name, value in table.items() if not name.endswith(ALONE))
    for rows in result.scores.left_out.values():
        yield from ((name, one[result.metric]) for name, one in rows.items() if result.metric in one)


def _finite(value: Any) -> Any:
    """JSON has no NaN: null instead."""
    if isinstance(value, dict):
        return {str(name): _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
