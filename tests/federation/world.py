"""A federation under a virtual clock: production loops, performers, journal and outboxes; only network and training are
simulated. Any actor can be killed between any two things it does to its disk or its link, and starts again from disk.

One seed is one schedule: which actor takes its next event, what fails and when.
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from aggregator.attendance import PREFETCH
from aggregator.control import Control
from aggregator.effects import Decided
from aggregator.opening import initialise, replay, rule_text
from aggregator.settings import Aggregation, Folder, Limits, Settings, Start
from broker.link import Outgoing
from broker.memory import MemoryLink
from broker.messages import AGGREGATOR
from broker.topology import Queue, SiteNames, Topology, federation_topology, stream_bytes
from deploy.history import Ledger
from deploy.ledger import read_books
from tests.federation.actors import FEDERATION, LAYOUT, Actor, AggregatorActor, SiteActor, Sound
from tests.federation.disk import CheapKey, Disk, SimBroker, SimJournal
from tests.federation.fuse import Fuse

LARGEST_MESSAGE = 600
LONGEST_NAP_S = 10.0
QUIET_TRAINING_S = (5, 15)
SENT_KEPT = 100
AGGREGATION = Aggregation(buffer_size=2, max_wait_s=20.0)


class World:
    """See the module's docstring.

    `training_s` is how long a round lasts at most, `refusing` lets the aggregator refuse every tenth update. `drift` is
    how often time passes although events wait, `batch` how many events a process takes at most before it commits.
    """

    def __init__(
        self,
        path: Path,
        seed: int,
        *,
        sites: int = 3,
        versions: int = 6,
        mutant: Any = Sound,
        aggregation: Aggregation = AGGREGATION,
        codec: str = "int8",
        model_codec: str = "float32",
        keyframe_every: int = 20,
        training_s: int = 0,
        refusing: bool = False,
        batch: int = 1,
        drift: float = 0.0,
        presence_s: float = 2.0,
        snapshot_every_s: float = 0.0,
        in_memory: bool = False,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.random, self.now, self.mutant = random.Random(seed), 1_000.0, mutant
        self.folder, self.path, self.disk = Folder(path / "aggregator"), path, Disk(in_memory=in_memory)
        self.names = [f"S{number}" for number in range(sites)]
        self.keys = {name: CheapKey(name) for name in (AGGREGATOR, *self.names)}
        self.settings = Settings(
            FEDERATION, "t", codec=codec, versions=versions, presence_s=presence_s, aggregation=aggregation,
            start=Start(min_sites=sites, start_after_s=30.0), limits=Limits(max_examples=9 if refusing else 10),
            model_codec=model_codec, keyframe_every=keyframe_every, snapshot_every_s=snapshot_every_s,
        )  # fmt: skip
        self.training_s, self._batch, self._drift = (0, training_s), batch, drift
        self._hurry, self.left_behind = False, list[str]()
        self.faults, self.story, self.tell = Counter[str](), list[str](), tell
        self.sent: deque[tuple[str, Outgoing]] = deque(maxlen=SENT_KEPT)
        self.steps, self.goal, self.overfull = 0, versions, ""
        self._initialise()
        self.broker = SimBroker()
        self._declare()
        self.aggregator = AggregatorActor(self, AGGREGATOR)
        self.sites = [SiteActor(self, name) for name in self.names]
        self.actors: list[Actor] = [self.aggregator, *self.sites]
        self.control = Control()
        queues = [queue for topology in self.topologies() for queue in topology.queues if queue.kind == "quorum"]
        self._limits = [(queue.name, *_limits(queue)) for queue in queues]

    def outbox(self, site: str) -> Path:
        return self.path / f"{site}.db"

    def examples(self) -> int:
        """Rows of a round; every tenth has more than a refusing federation takes."""
        return self.random.randint(1, 10)

    def _initialise(self) -> None:
        self.folder.path.mkdir(parents=True)
        journal = self.mutant.journal(self.folder.journal_file, self.disk, Fuse())
        rule = rule_text(self.settings.aggregation)
        initialise(journal, self.folder, LAYOUT, np.zeros(3, dtype=np.float32), rule, at=self.now)
        journal.begin()
        for name in self.names:
            journal.enrol(name, self.keys[name].public, name, at=self.now)
        journal.commit()
        journal.close()

    def _declare(self) -> None:
        link = MemoryLink(self.broker, lambda _: None)
        link.open()
        for topology in self.topologies():
            link.declare(topology)
        link.close()

    def topologies(self) -> Iterable[Topology]:
        yield federation_topology(FEDERATION, max_models_bytes=stream_bytes(LAYOUT.size))
        for name in self.names:
            yield SiteNames(FEDERATION, name).topology()

    def queues(self) -> list[str]:
        """Names of all queues, and of the stream."""
        return [queue.name for topology in self.topologies() for queue in topology.queues]

    # ---- running

    def settle(self, *, steps: int = 4_000) -> None:
        """No more faults: everybody is up, and time passes until nothing is waiting any more."""
        self.calm()
        for _ in range(steps):
            if not self.one_step() and self.settled():
                return
        raise AssertionError("The federation did not settle.")

    def calm(self) -> None:
        """Nothing fails from now on, and whatever was held up goes on."""
        self._drift, self._hurry = 0.0, self.disk.in_memory
        if self._hurry:
            self.training_s = QUIET_TRAINING_S  # time must pass for those who wait
        for actor in self.actors:
            actor.fuse.clear()
            actor.tamper, actor.asleep_until, actor.cut_until = None, 0.0, 0.0
            if not actor.alive:
                actor.start()
            self._reconnect(actor)
        if self.control.paused:
            self.decide(msgspec.structs.replace(self.control, paused=False))
        for site in self.sites:
            site.failing = False
            site.pause(paused=False)

    def settle_as_is(self) -> None:
        """Until no update waits anywhere at this moment."""
        self.run_until(lambda: not self._waiting() and not self._buffered())

    def run_until(
        self,
        condition: Callable[[], bool],
        *,
        steps: int = 20_000,
        start_dead: bool = True,
        each_step: Callable[[], None] = lambda: None,
    ) -> None:
        for _ in range(steps):
            if condition():
                return
            each_step()
            self.one_step(start_dead=start_dead)
        raise AssertionError("It did not come about.")

    @property
    def journal(self) -> SimJournal:
        """The aggregator's, while it runs."""
        assert self.aggregator.journal is not None
        return self.aggregator.journal

    def version(self) -> int:
        (newest,) = self.journal.query("SELECT max(version) FROM versions")[0]
        return int(newest)

    def merged_since(self, version: int) -> dict[str, tuple[int, float]]:
        """The first update of each site that went into a version above this one: its staleness and weight."""
        rows = self.journal.query(
            "SELECT site, staleness, weight FROM merged WHERE version > ? ORDER BY ordinal DESC", version
        )
        return {row["site"]: (row["staleness"], row["weight"]) for row in rows}

    def settled(self) -> bool:
        """Every version that was asked for is there and made, and no update waits anywhere."""
        wanted = self.control.last_version(self.settings.versions)
        return not self._waiting() and self.version() >= wanted and not self._buffered() and not self.making()

    def making(self) -> bool:
        return not self.journal.versions()[-1].digest

    def _waiting(self) -> bool:
        return any(site.outbox is not None and site.alive and site.outbox.waiting() for site in self.sites)

    def _buffered(self) -> bool:
        return self.journal.last_ordinal() > self.journal.versions()[-1].through_ordinal

    def one_step(self, *, start_dead: bool = True) -> bool:
        """One actor with something to do does it; if there is none, time passes. False then."""
        self.steps += 1
        busy = [actor for actor in self.actors if actor.events and actor.ready]
        if busy and not (self._drift and self.random.random() < self._drift):
            self.random.choice(busy).step(self.random.randint(1, self._batch))
        else:
            self._pass_time(start_dead=start_dead)
        self._look_at_queues()
        return bool(busy)

    def meanwhile(self, held_up: Actor) -> None:
        """The others go on while this one waits for its disk."""
        held_up.waiting = True
        for _ in range(self.random.randint(0, 4)):
            self.one_step()
        held_up.waiting = False

    def _pass_time(self, *, start_dead: bool) -> None:
        self.now += self._nap_s()
        for actor in self.actors:
            if actor.cut_until and actor.cut_until <= self.now:
                self._reconnect(actor)
            if actor.ready:
                actor.wake()
                actor.step()
            elif not actor.alive and start_dead and self.random.random() < 0.3:
                actor.start()

    def _nap_s(self) -> float:
        """A second; once nothing fails any more, until something is due."""
        if not self._hurry:
            return 1.0
        times = [actor.loop.deadline() for actor in self.actors if actor.alive]
        times += [at for actor in self.actors for at, _ in actor.due]
        return min(max(min((at for at in times if at is not None), default=0.0) - self.now, 0.5), LONGEST_NAP_S)

    def _look_at_queues(self) -> None:
        """Promise 6 at every step."""
        if self.overfull:
            return
        if over := self.broker.over(self._limits):
            self.overfull = f"{over} at step {self.steps}"

    # ---- what faults are made of

    def decide(self, control: Control) -> None:
        """The coordinator decides; the aggregator sees it while it runs and when it starts."""
        self.control = control
        if self.aggregator.alive:
            self.aggregator.events.append(Decided(control))

    def happened(self, kind: str, detail: str) -> None:
        """A fault has come about."""
        self.faults[kind] += 1
        self.story.append(f"step {self.steps} t={self.now - 1000:g}: {kind}: {detail}")
        if self.tell is not None:
            self.tell(f"--- {self.story[-1]}")

    def cut(self, actor: Actor, *, for_s: int) -> None:
        """The connection breaks, and comes back after a while or at once."""
        if actor.link is None or not actor.link.connected:
            return
        self.broker.disconnect(actor.link)
        if for_s:
            actor.cut_until = self.now + for_s
        else:
            self._reconnect(actor)

    def _reconnect(self, actor: Actor) -> None:
        actor.cut_until = 0.0
        if actor.link is not None and not actor.link.connected:
            self.broker.reconnect(actor.link)

    # ---- what must hold

    def ledger(self) -> Ledger:
        """From the files."""
        return read_books(self.folder.journal_file, [(name, self.outbox(name)) for name in self.names]).balance()

    def replays(self) -> bool:
        """Folding the journal again gives every version's digest."""
        return all(one.same for one in replay(self.journal, self.folder))

    def close(self) -> None:
        for actor in self.actors:
            actor.crash()
        self.disk.close()


def _limits(queue: Queue) -> tuple[float, float]:
    """Messages and bytes that may be ready; what a reader gives back comes on top of the bytes that were taken in."""
    arguments = queue.arguments
    given_back = (PREFETCH + 1) * LARGEST_MESSAGE
    return float(arguments.get("x-max-length", "inf")), float(arguments.get("x-max-length-bytes", "inf")) + given_back
