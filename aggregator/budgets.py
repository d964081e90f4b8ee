"""How many steps each site is asked for, so that all of them take about the same time for a round.

The idea is that of FedCompass (Li et al. 2023): a slow site gets fewer steps, where it would else take more time and
come with a stale update. How fast a site is follows from its accepted updates, which say how many steps they took and
how long. What this does to the model is in docs/algorithms.md; it is off unless the plan has `equal_time`.

Budgets are fixed when a version is made and hold until the next: what is announced again is the same round, also after
a restart, for they follow from the updates that were accepted before the version, and these are in the journal.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from statistics import median, median_high
from typing import Final

from aggregator.settings import Plan

REMEMBERED: Final = 3  # updates of a site: their median passes over one odd round, and follows a new machine soon
SMALLEST_PART: Final = 20
FASTEST: Final = 1e9  # steps a second; beyond it nothing was measured

WirePlan = list[tuple[str, float]]


def budgets(speeds: Mapping[str, float], *, steps: int) -> dict[str, int]:
    """Steps of each site by its speed in steps a second: all get `steps`, but the slower half only as many as fit.

    The time T is what the median site needs for `steps`; of an even number, the faster of the two in the middle. So a
    budget is floor(T * speed), at most `steps`, and at least a twentieth of it: too little is mostly noise.
    """
    if not speeds:
        return {}
    middle, least = median_high(speeds.values()), max(1, steps // SMALLEST_PART)
    return {
        site: steps if speed >= middle else max(least, int(steps * speed / middle)) for site, speed in speeds.items()
    }


class Budgets:
    """What is known of the sites' speeds, and the budgets of the newest version. Does no I/O; for one thread."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._speeds: dict[str, deque[float]] = {}
        self._fixed: dict[str, int] = {}

    def note(self, site: str, *, steps: int, training_s: float) -> None:
        """Learn from an accepted update; one that says that it took no time says nothing."""
        if steps <= training_s * FASTEST:
            self._speeds.setdefault(site, deque(maxlen=REMEMBERED)).append(steps / training_s)

    def fix(self, sites: Iterable[str]) -> None:
        """A version has been made: take what is known now of `sites`, those that are enrolled."""
        if self._plan.equal_time:
            known = {site: median(self._speeds[site]) for site in sites if site in self._speeds}
            self._fixed = budgets(known, steps=self._plan.steps)

    def plans(self, sites: Iterable[str]) -> dict[str, WirePlan]:
        """The plan of each of `sites`, empty if all have the whole plan; a site of unknown speed has it."""
        asked = {site: self._fixed.get(site, self._plan.steps) for site in sites}
        if all(steps == self._plan.steps for steps in asked.values()):
            return {}
        return {site: self._plan.shortened(steps).to_wire() for site, steps in asked.items()}
