"""One run: a scenario, a strategy and a seed make a Result."""

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from aggregator.journal import VersionRow
from deploy.simulation.learning import Learning, Vector
from deploy.simulation.result import Point, Result, digest, is_better, low_is_good
from deploy.simulation.scenario import Scenario
from deploy.simulation.surrogate import Surrogate
from deploy.simulation.world import World

CURVE_POINTS: Final = 600
ABSENT_LOOKED_AT: Final = 5
FAST_DISK: Final = Path("/dev/shm")  # noqa: S108 - in memory: snapshots are synced at every version
Told = Callable[[float], None]


class Curve:
    """The leading metric by virtual time: of every version, but of no more than CURVE_POINTS moments of the run."""

    def __init__(self, learning: Learning, world: World, told: Told) -> None:
        self._learning, self._world, self._told = learning, world, told
        self._next_at, self._scaled = 0.0, False
        self.points: list[Point] = []
        self.away: list[float] = []

    def watch(self, row: VersionRow, model: Vector) -> None:
        """A new version; the same one again if the aggregator was killed before it could commit it."""
        clock, stop = self._world.clock, self._world.scenario.stop
        done = max(_share(row.version, stop.versions), _share(row.through_ordinal, stop.updates))
        if done >= 1:
            clock.stop()
        if clock.now >= self._next_at:
            self._next_at = clock.now + stop.seconds / CURVE_POINTS
            self.look(row, model)
            self._told(max(clock.now / stop.seconds, done))

    def look(self, row: VersionRow, model: Vector) -> dict[str, float]:
        """Evaluate a version."""
        learning, now = self._learning, self._world.clock.now
        if not self._scaled:
            fact = self._world.journal.fact("statistics")
            learning.use_statistics(json.loads(fact) if fact else [])
            self._scaled = True
        measures = learning.measures(model)
        self.points.append(Point(round(now, 3), row.version, row.through_ordinal, measures[learning.metric]))
        away = [name for name, part in self._world.cast.items() if part.is_away(now)][:ABSENT_LOOKED_AT]
        found = [one for name in away if (one := learning.of_site(model, name)) is not None]
        self.away += [sum(found) / len(found)] if found else []
        return measures


def _share(done: int, most: int) -> float:
    return done / most if most else 0.0


def simulate(scenario: Scenario, name: str, strategy: str, seed: int, *, told: Told = lambda _: None) -> Result:
    """Run it. `told` hears of the share that is done."""
    learning = learning_of(scenario, seed)
    disk = FAST_DISK if FAST_DISK.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="fedqueue-simulate-", dir=disk) as folder:
        world = World(scenario, strategy, learning, seed, path=Path(folder))
        try:
            curve = Curve(learning, world, told)
            world.watch = curve.watch
            world.run()
            return _result(world, curve, name, strategy)
        finally:
            world.close()


def learning_of(scenario: Scenario, seed: int) -> Learning:
    """The task or the surrogate that the scenario names."""
    if scenario.surrogate is not None:
        table = scenario.surrogate
        return Surrogate.drawn(scenario.names, table.dimensions, spread=table.spread, seed=seed)
    from deploy.simulation.tasks import TaskLearning  # noqa: PLC0415 - torch takes seconds

    return TaskLearning.of(scenario, seed)


def _result(world: World, curve: Curve, name: str, strategy: str) -> Result:
    learning, journal, model = world.learning, world.journal, world.model()
    newest = journal.versions()[-1]
    final = curve.look(newest, model)
    own = learning.own(model)
    sites = Counter(dict.fromkeys(world.sites, 0))
    rows = journal.query("SELECT site, staleness FROM updates")
    sites.update(row["site"] for row in rows)
    carried = [site.carried for site in world.sites.values()]
    worst = max if low_is_good(learning.metric) else min
    return Result(
        scenario=name,
        strategy=strategy,
        seed=world.seed,
        metric=learning.metric,
        seconds=round(world.clock.now, 3),
        reached_s=_reached(world.scenario, learning.metric, curve),
        final=final,
        own=own,
        worst=worst(own, key=lambda site: own[site]),
        away=sum(curve.away) / len(curve.away) if curve.away else None,
        absent=tuple(site for site, part in world.cast.items() if part.absences),
        versions=newest.version,
        updates=len(rows),
        reasons=dict(Counter(row.reason for row in journal.versions()[1:])),
        participation=dict(sites),
        staleness=dict(sorted(Counter(row["staleness"] for row in rows).items())),
        bytes_up=round(sum(up for up, _ in carried)),
        bytes_down=round(sum(down for _, down in carried)),
        kills=world.aggregator.kills + sum(site.kills for site in world.sites.values()),
        ledger=world.ledger(),
        replayed=world.replays(),
        journal=digest(journal),
        curve=tuple(curve.points),
    )


def _reached(scenario: Scenario, metric: str, curve: Curve) -> float | None:
    target = scenario.target
    if target is None:
        return None
    return next((point.seconds for point in curve.points if is_better(metric, point.value, target.value)), None)
