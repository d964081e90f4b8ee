"""One run of eight hospitals: real processes, a broker of their own, and trouble all the time until it is over.

S2 trains twenty times slower, the line of S4 is cut again and again, S6 is killed again and again, the aggregator once.
The clock begins when version 0 goes out; starting Python and the broker is not measured.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Final

from aggregator.control import Control, write_control
from aggregator.journal import Journal
from aggregator.status import read_status
from broker.errors import FedqueueError
from broker.settings import to_toml
from deploy.ending import read_ending
from deploy.events import read_events
from deploy.history import Ledger
from deploy.local import LocalFederation, SitePlan
from deploy.watching import StoppedError, Watch
from site_worker.training import Trainer
from tests.benchmarks.curves import Point, Weights, curve
from tests.benchmarks.hospital_task import common
from tests.benchmarks.troubles import Cutting, KilledOnce, Killing, Trouble, lead_through
from tests.link.proxy import Proxy

TASK: Final = "tests.benchmarks.hospital_task:site"
SITES: Final = tuple(f"S{number}" for number in range(1, 9))
SLOW, CUT, KILLED = "S2", "S4", "S6"
SLOWER: Final = 20
STEPS: Final = 5
ALPHA: Final = 0.5
LOOK_S: Final = 0.1
TELL_S: Final = 5.0
SETTLE_S: Final = 60.0
SETTINGS: Final = """\
federation = "hospitals"
task = "digits"
versions = {versions}
presence_s = 0.5

[plan]
steps = {steps}
batch_size = 32
learning_rate = {learning_rate}

[start]
min_sites = {sites}
start_after_s = 300.0

[aggregation]
{aggregation}
"""


@dataclass(frozen=True)
class Arm:
    """How versions are made, until there are so many `rounds` (0: no end) or `seconds` have passed."""

    name: str
    aggregation: Mapping[str, str | float]
    rounds: int = 0
    seconds: float = float("inf")


@dataclass(frozen=True)
class Conditions:
    """What is the same in both arms: the split and the troubles by `seed`, the plan, and when the aggregator dies."""

    seed: int
    learning_rate: float
    round_s: float
    aggregator_killed_s: float


@dataclass(frozen=True)
class Outcome:
    """What a run left. `updates` are those in the model, `staleness` their mean and largest, by site.

    `load` is the machine's at the end, the mean of a minute.
    """

    points: tuple[Point, ...]
    ledger: Ledger
    replayed: bool
    updates: dict[str, int]
    staleness: dict[str, tuple[float, int]]
    site_kills: int
    aggregator_kills: int
    cuts: dict[str, int]
    load: float

    @property
    def seconds(self) -> float:
        """From the start to the newest version."""
        return self.points[-1].seconds


@dataclass(frozen=True)
class Onlooker:
    """Who is told how a run goes on, and may stop it."""

    stopping: threading.Event
    tell: Callable[[str], None]

    def go_on(self) -> None:
        """Raise StoppedError if it is time to stop."""
        if self.stopping.is_set():
            raise StoppedError("stopped")


def run(arm: Arm, conditions: Conditions, folder: Path, onlooker: Onlooker) -> Outcome:
    """The whole run in a new `folder`; StoppedError if the onlooker wants so, and no process is left in any case."""
    federation = LocalFederation(folder)
    try:
        node = federation.start_broker()
        with Proxy(node.amqp_port) as proxy:
            one = _Run(arm, conditions, federation, proxy=proxy, onlooker=onlooker)
            one.prepare()
            one.live()
            return one.conclude()
    finally:
        federation.close()


class _Run:
    def __init__(
        self, arm: Arm, conditions: Conditions, federation: LocalFederation, *, proxy: Proxy, onlooker: Onlooker
    ) -> None:
        self._arm, self._conditions, self._federation = arm, conditions, federation
        self._proxy, self._onlooker = proxy, onlooker
        seed = conditions.seed
        self._killing = Killing(federation, KILLED, Random(seed))
        self._killed_once = KilledOnce(federation, after_s=conditions.aggregator_killed_s or float("inf"))
        self._cutting = Cutting(proxy, Random(seed + 1))
        self._troubles: tuple[Trouble, ...] = ()
        self._started, self._told = 0.0, 0.0

    def prepare(self) -> None:
        """Set everything up, start it, and wait for version 0 to go out."""
        federation, conditions = self._federation, self._conditions
        assert federation.node is not None
        settings = SETTINGS.format(
            versions=self._arm.rounds,
            steps=STEPS,
            learning_rate=conditions.learning_rate,
            sites=len(SITES),
            aggregation=to_toml(self._arm.aggregation),
        )
        plans = [self._plan(number, name) for number, name in enumerate(SITES)]
        federation.set_up(federation="hospitals", task=TASK, sites=plans, settings=settings)
        lead_through(self._proxy, federation.site(CUT).url_file, federation.node)
        federation.start_aggregator()
        for name in SITES:
            federation.start_site(name)
        self._go_on_until(lambda: read_status(federation.aggregator).started)
        self._started = time.time()

    def live(self) -> None:
        """With all troubles, until the arm is at its end; then without, until nothing waits anywhere."""
        aggregator = self._federation.aggregator
        self._troubles = (self._killing, self._cutting, self._killed_once)
        last = self._started + self._arm.seconds
        rounds = self._arm.rounds or float("inf")
        self._go_on_until(lambda: time.time() >= last or read_status(aggregator).version >= rounds)
        for trouble in self._troubles:
            trouble.end()
        self._troubles = ()
        if not self._arm.rounds:
            with closing(Journal(aggregator.journal_file)) as journal:
                write_control(journal, Control(stop_after=read_status(aggregator).version + 1))
        if not Watch(self._federation, SITES, self._onlooker.stopping).settle(SETTLE_S):
            raise FedqueueError(f"After {SETTLE_S:.0f} s there are still updates that wait, or sites that train.")

    def conclude(self) -> Outcome:
        """Read everything from the files."""
        load = os.getloadavg()[0]
        ending = read_ending(self._federation, SITES)
        merged = [one for one in read_events(self._federation.aggregator).merged if one.version <= ending.version]
        ages = {site: [one.staleness for one in merged if one.site == site] for site in SITES}
        return Outcome(
            points=tuple(self._curve()),
            ledger=ending.ledger,
            replayed=ending.replayed,
            updates={site: len(all_) for site, all_ in ages.items()},
            staleness={site: (round(fmean(all_), 2), max(all_)) for site, all_ in ages.items() if all_},
            site_kills=self._killing.kills,
            aggregator_kills=self._killed_once.kills,
            cuts=self._cutting.counts,
            load=round(load, 2),
        )

    def _curve(self) -> Iterator[Point]:
        """Without what was made after the arm's end, of the last updates."""
        judge = Trainer(common(), None, seed=0)

        def accuracy(weights: Weights) -> float:
            self._onlooker.go_on()
            return judge.evaluate(weights)["accuracy"]

        for point in curve(self._federation.aggregator, accuracy, started=self._started):
            if point.seconds <= self._arm.seconds:
                yield point

    def _plan(self, number: int, name: str) -> SitePlan:
        """A site that takes `round_s` for a round, the slow one twenty times as long."""
        seed, delay_s = self._conditions.seed, self._conditions.round_s / STEPS
        options = {"number": number, "sites": len(SITES), "alpha": ALPHA, "seed": seed}
        slower = SLOWER if name == SLOW else 1
        return SitePlan(name, options, delay_s * slower, probe_s=1.0, seed=1000 * seed + number)

    def _go_on_until(self, done: Callable[[], bool]) -> None:
        while not done():
            self._onlooker.go_on()
            self._federation.check()
            now = time.monotonic()
            for trouble in self._troubles:
                trouble.look(now)
            if now >= self._told + TELL_S:
                self._told = now
                self._onlooker.tell(self._line())
            self._onlooker.stopping.wait(LOOK_S)

    def _line(self) -> str:
        if not self._started:
            return f"{self._arm.name}: starting"
        status, cuts = read_status(self._federation.aggregator), sum(self._cutting.counts.values())
        return (
            f"{self._arm.name}: {time.time() - self._started:.0f} s, version {status.version}, "
            f"{status.accepted} updates, {self._killing.kills} kills of {KILLED}, {cuts} cuts of {CUT}"
        )
