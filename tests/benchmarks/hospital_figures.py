"""What is made of the runs of eight hospitals: how soon each rule was as good as the rounds, over seeds, and in words.

The target is what the rounds end with, the mean of their last three versions. A rule is there when the rolling mean
over five of its versions first is; it stays there from when on no rolling mean is below.
"""

from dataclasses import asdict
from statistics import median
from typing import Any, Final

from tests.benchmarks.arms import SLOW, Outcome
from tests.benchmarks.curves import reached, rolling, stays

LAST, WIDTH = 3, 5
MEASURES: Final = {
    "target": "accuracy that the rounds end with",
    "rounds_s": "seconds that the rounds took",
    "rounds_reached_s": "seconds until the rounds were there",
    "reached_s": "seconds until this rule was there",
    "stays_s": "seconds until it was there to stay",
    "ratio": "reached / rounds took",
    "ratio_stays": "stays / rounds took",
    "ratio_reached": "reached / rounds reached",
    "final": "accuracy of this rule at its end",
}
Figures = dict[str, float | None]


def compared(rounds: Outcome, other: Outcome) -> Figures:
    """The figures of MEASURES for one seed; None where the target was not reached."""
    own, others = rolling(rounds.points, LAST), rolling(other.points, WIDTH)
    target = own[-1].value
    own_first, first, to_stay = reached(own, target), reached(others, target), stays(others, target)
    return {
        "target": target,
        "rounds_s": rounds.seconds,
        "rounds_reached_s": own_first,
        "reached_s": first,
        "stays_s": to_stay,
        "ratio": _ratio(first, rounds.seconds),
        "ratio_stays": _ratio(to_stay, rounds.seconds),
        "ratio_reached": _ratio(first, own_first),
        "final": others[-1].value,
    }


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def spread(seeds: list[Figures]) -> dict[str, dict[str, float]]:
    """Median, smallest and largest of each figure; `missed` counts the seeds in which it did not come about."""
    found = {}
    for name in MEASURES:
        values = [value for one in seeds if (value := one[name]) is not None]
        numbers = {"median": median(values), "min": min(values), "max": max(values)} if values else {}
        rounded = {key: round(value, 4) for key, value in numbers.items()}
        found[name] = rounded | {"missed": len(seeds) - len(values)}
    return found


def kept(outcomes: list[Outcome]) -> dict[str, Any]:
    """The promises over all runs."""
    return {
        "lost": sum(one.ledger.lost for one in outcomes),
        "doubled": sum(one.ledger.doubled for one in outcomes),
        "replayed": all(one.replayed for one in outcomes),
    }


def told(outcome: Outcome) -> dict[str, Any]:
    """A run for JSON; its curve is [seconds, accuracy] by version from 1 on."""
    values = asdict(outcome)
    del values["points"]
    points = [[round(one.seconds, 2), round(one.value, 4)] for one in outcome.points]
    return {"seconds": round(outcome.seconds, 2), "versions": len(points), **values, "curve": points}


def line(name: str, outcome: Outcome) -> str:
    """A run in one line."""
    return (
        f"{name}: {len(outcome.points)} versions; {outcome.ledger.line}; "
        f"replay {'the same' if outcome.replayed else 'DIFFERS'}; {outcome.site_kills} kills of a site, "
        f"{outcome.aggregator_kills} of the aggregator, {sum(outcome.cuts.values())} cuts; "
        f"staleness of {SLOW} (mean, largest) {outcome.staleness.get(SLOW)}; load {outcome.load}"
    )


def table(rule: str, figures: dict[str, dict[str, float]]) -> list[str]:
    """Medians and spreads of one rule to be read."""
    rows = [
        f"{text:<40}" + "".join(f"{shown(one.get(key)):>9}" for key in ("median", "min", "max")) + f"{one['missed']:>8}"
        for name, text in MEASURES.items()
        for one in (figures[name],)
    ]
    return [rule, f"{'':<40}{'median':>9}{'min':>9}{'max':>9}{'missed':>8}", *rows]


def shown(value: float | None) -> str:
    """A figure or a dash."""
    return "-" if value is None else f"{value:.3f}"
