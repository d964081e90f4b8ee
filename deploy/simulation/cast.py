"""Who is who in one run: each site's speed, line, troubles and absences, drawn from the scenario and a seed.

The strategy has no part in it: all that are compared meet the same sites and the same absences.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from deploy.simulation.chance import source
from deploy.simulation.network import Road
from deploy.simulation.scenario import Absence, Scenario, Special, Speeds, Who

MBIT: Final = 125_000  # bytes a second


@dataclass(frozen=True)
class Away:
    """One absence of one site; `end` is infinite if it never comes back."""

    start: float
    end: float
    how: str


@dataclass(frozen=True)
class Part:
    """What one site is in a run."""

    name: str
    step_s: float
    road: Road
    drops_per_hour: float
    kills_per_hour: float
    joins_s: float
    absences: tuple[Away, ...] = ()
    seed: int = 0

    def is_away(self, at: float) -> bool:
        """Whether an absence has begun and has not ended."""
        return any(away.start <= at < away.end for away in self.absences)


def drawn(scenario: Scenario, unique: Mapping[str, float], seed: int) -> dict[str, Part]:
    """The part of each site. `unique` says how much of a site's rows are its alone."""
    steps = _step_seconds(scenario, source(seed, "speeds"))
    special = {name: list[Special]() for name in scenario.names}
    away = {name: list[Away]() for name in scenario.names}
    for number, one in enumerate(scenario.special):
        for name in meant(one.who, scenario, steps, unique, source(seed, f"special {number}")):
            special[name].append(one)
    for name in scenario.names:
        for one in special[name]:
            steps[name] *= one.slower
    for number, absence in enumerate(scenario.absences):
        for name in meant(absence.who, scenario, steps, unique, source(seed, f"absences {number}")):
            away[name] += _absences(absence, scenario.stop.seconds, source(seed, f"away {number} {name}"))
    return {
        name: replace(
            _part(scenario, name, steps[name], special[name]), absences=tuple(sorted(away[name], key=_start)), seed=seed
        )
        for name in scenario.names
    }


def _start(one: Away) -> float:
    return one.start


def meant(
    who: Who, scenario: Scenario, steps: Mapping[str, float], unique: Mapping[str, float], chance: random.Random
) -> list[str]:
    """The sites that `who` means: so many at random, one by name, or one by what it is."""
    names = scenario.names
    if isinstance(who, int):
        return sorted(chance.sample(names, who))
    match who:
        case _ if who in names:
            return [who]
        case "all":
            return list(names)
        case "slowest":
            return [max(names, key=lambda name: steps[name])]
        case "fastest":
            return [min(names, key=lambda name: steps[name])]
        case _:
            return [max(names, key=lambda name: unique.get(name, 0.0))]


def _step_seconds(scenario: Scenario, chance: random.Random) -> dict[str, float]:
    speeds = scenario.speeds
    if speeds.kind == "list":
        return dict(zip(scenario.names, speeds.values, strict=True))
    return {name: _drawn_speed(speeds, chance) for name in scenario.names}


def _drawn_speed(speeds: Speeds, chance: random.Random) -> float:
    if speeds.kind == "log-normal":
        return speeds.seconds * chance.lognormvariate(0.0, speeds.sigma)
    if speeds.kind == "pareto":
        return speeds.seconds * chance.paretovariate(speeds.shape)
    return speeds.seconds


def _absences(absence: Absence, until: float, chance: random.Random) -> Iterator[Away]:
    end = until if absence.to_s is None else absence.to_s
    if absence.present_s is None or absence.away_s is None:
        yield Away(absence.from_s, float("inf") if absence.to_s is None else absence.to_s, absence.how)
        return
    both = absence.present_s + absence.away_s
    at, away = absence.from_s, chance.random() * both < absence.away_s  # as it is at any moment, once it is under way
    while at < end:
        until_s = at + chance.expovariate(1 / (absence.away_s if away else absence.present_s))
        if away:
            yield Away(at, until_s, absence.how)
        at, away = until_s, not away


def _part(scenario: Scenario, name: str, step_s: float, special: list[Special]) -> Part:
    """A site's part without its absences; of what several [[special]] say, the last holds."""
    links = scenario.links
    known: dict[str, float] = {
        "up_mbit": links.up_mbit,
        "down_mbit": links.down_mbit,
        "drops_per_hour": links.drops_per_hour,
        "kills_per_hour": scenario.faults.kills_per_hour,
        "joins_s": 0.0,
    }
    for one in special:
        known |= {key: value for key in known if (value := getattr(one, key)) is not None}
    up, down = (known[key] * MBIT or float("inf") for key in ("up_mbit", "down_mbit"))
    road = Road(links.latency_s, up, down)
    return Part(name, step_s, road, known["drops_per_hour"], known["kills_per_hour"], known["joins_s"])
