"""A federation under a virtual clock: production loops, performers, journal and outboxes; only network and training are
simulated. Any actor can be killed between any two things it does to its disk or its link, and starts again from disk.

One seed is one schedule: which actor takes its next event, what fails and when.
"""

import hashlib
import random
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from aggregator.journal import Journal
from aggregator.loop import AggregatorLoop
from aggregator.opening import initialise, replay, restore, rule_text
from aggregator.service import Performer as AggregatorPerformer
from aggregator.settings import Aggregation, Folder, Settings, Start
from broker.codecs import decoded, encode
from broker.drive import Tick
from broker.identity import PrivateKey
from broker.memory import MemoryBroker, MemoryLink
from broker.messages import AGGREGATOR, Hello, Party, Peer
from broker.topology import SiteNames, Topology, federation_topology, models_stream, stream_bytes
from broker.weights import Layout
from deploy.history import Ledger
from deploy.ledger import read_books
from site_worker.effects import Train, Trained
from site_worker.loop import SiteLoop
from site_worker.outbox import Made, Outbox
from site_worker.worker import Performer as SitePerformer

FEDERATION = "f"
LAYOUT = Layout.of({"w": np.zeros(3, dtype=np.float32)})
PROBE_S = 5.0


class Killed(Exception):
    """The actor's process is gone."""


class Fuse:
    """Counts what an actor does to disk and link; burns through when a set number has been done."""

    def __init__(self) -> None:
        self.left: int | None = None

    def burn(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed


class FusedLink:
    """A link whose every call may be the last thing its process does."""

    def __init__(self, link: MemoryLink, fuse: Fuse) -> None:
        self._link, self._fuse = link, fuse

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> None:
            self._fuse.burn()
            getattr(self._link, name)(*args, **kwargs)

        return call


class Actor(ABC):
    """A process with a disk, a link and a loop."""

    loop: Any
    performer: Any

    def __init__(self, world: "World", name: str) -> None:
        self.world, self.name = world, name
        self.fuse = Fuse()
        self.events: deque[Any] = deque()
        self.link: MemoryLink | None = None

    @property
    def alive(self) -> bool:
        return self.link is not None

    def start(self) -> None:
        self.events.clear()
        self.link = MemoryLink(self.world.broker, self.events.append, user=self.name)
        self.open(FusedLink(self.link, self.fuse))
        self.link.open()

    def step(self) -> None:
        """Handle one event (or just the time) and do what follows; a burnt fuse ends the process there."""
        try:
            if self.events:
                self.performer.stage(self.loop.handle(self.events.popleft(), self.world.now))
            self.performer.stage(self.loop.handle(Tick(), self.world.now))
            self.performer.flush()
        except Killed:
            self.crash()

    def crash(self) -> None:
        self.fuse.left = None
        if self.link is not None:
            self.link.close()
            self.link = None
            self.shut()

    @abstractmethod
    def open(self, link: Any) -> None:
        """Build loop and performer from disk."""

    @abstractmethod
    def shut(self) -> None:
        """Close the disk."""


class AggregatorActor(Actor):
    def open(self, link: Any) -> None:
        world = self.world
        self.journal = world.mutant.journal(world.folder.journal_file)
        layout, fold = restore(self.journal, world.folder, world.settings.aggregation)
        party = Party(FEDERATION, AGGREGATOR, world.keys[AGGREGATOR])
        rule = rule_text(world.settings.aggregation)
        self.loop = AggregatorLoop(world.settings, party, fold, self.journal, rule=rule)
        self.performer = world.mutant.aggregator(self.journal, world.folder, layout, link, fuse=self.fuse)

    def shut(self) -> None:
        self.journal.close()


class SiteActor(Actor):
    """Trains at once: its optimum pulls every coordinate by half of the way."""

    def open(self, link: Any) -> None:
        world = self.world
        self.outbox = Outbox(world.outbox(self.name))
        party = Party(FEDERATION, self.name, world.keys[self.name])
        peer = Peer(FEDERATION, AGGREGATOR, world.keys[AGGREGATOR].public)
        greeting = Hello("t", bytes(16), 1, 0, 0, LAYOUT.digest, 10, [], False)
        self.loop = world.mutant.site_loop(party, peer, self.outbox, greeting, probe_s=PROBE_S)
        inbox: Any = SimpleNamespace(put=self.events.append)
        rounds: Any = SimpleNamespace(task_name="t")
        self.performer = world.mutant.site(
            party, rounds, self.outbox, link=link, inbox=inbox, stopping=threading.Event()
        )
        self.performer.fuse, self.performer.learn = self.fuse, self.learn

    def shut(self) -> None:
        self.outbox.close()

    def learn(self, effect: Train) -> None:
        optimum = np.full(3, 1 + int(self.name[1:]), dtype=np.float32)
        target = (optimum - effect.model) * np.float32(0.5) + self.outbox.residual(3)
        payload = encode("int8", target)
        announcement = effect.announcement
        digest = hashlib.sha256(payload).digest()
        made = Made(
            0, announcement.version, announcement.model_digest, 10, 1, 0, (), "int8", digest, self.world.now, 0.0,
            len(payload), payload,
        )  # fmt: skip
        self.events.append(Trained(made, target - decoded("int8", payload, 3)))


class FusedAggregator(AggregatorPerformer):
    def __init__(self, journal: Journal, folder: Folder, layout: Layout, link: Any, *, fuse: Fuse) -> None:
        super().__init__(journal, folder, layout, link, threading.Event())
        self.fuse = fuse

    def _store(self, effect: Any) -> None:
        self.fuse.burn()
        super()._store(effect)


class FusedSite(SitePerformer):
    fuse: Fuse
    learn: Callable[[Train], None]

    def _store(self, effect: Any) -> None:
        self.fuse.burn()
        super()._store(effect)

    def _train(self, effect: Train) -> None:
        self.learn(effect)


class Sound:
    """The product as it is; mutants override one piece."""

    journal: Any = Journal
    aggregator: Any = FusedAggregator
    site: Any = FusedSite
    site_loop: Any = SiteLoop


class World:
    """See the module's docstring."""

    def __init__(self, path: Path, seed: int, *, sites: int = 3, versions: int = 6, mutant: Any = Sound) -> None:
        self.random, self.now, self.mutant = random.Random(seed), 1_000.0, mutant
        self.folder, self.path = Folder(path / "aggregator"), path
        self.names = [f"S{number}" for number in range(sites)]
        self.keys = {name: PrivateKey.generate() for name in (AGGREGATOR, *self.names)}
        aggregation = Aggregation(buffer_size=2, max_wait_s=20.0)
        start = Start(min_sites=sites, start_after_s=30.0)
        self.settings = Settings(
            FEDERATION, "t", versions=versions, presence_s=2.0, aggregation=aggregation, start=start
        )
        self._initialise()
        self.broker = MemoryBroker()
        self._declare()
        self.aggregator = AggregatorActor(self, AGGREGATOR)
        self.sites = [SiteActor(self, name) for name in self.names]
        self.actors: list[Actor] = [self.aggregator, *self.sites]
        self.faults = 0

    def outbox(self, site: str) -> Path:
        return self.path / f"{site}.db"

    def _initialise(self) -> None:
        self.folder.path.mkdir(parents=True)
        journal = Journal(self.folder.journal_file)
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

    # ---- running

    def run(self, steps: int, *, fault_rate: float) -> None:
        """Random order of events, random faults."""
        for actor in self.actors:
            actor.start()
        for _ in range(steps):
            if self.random.random() < fault_rate:
                self.faults += 1
                self.random.choice(self._faults())()
            self.one_step()

    def settle(self, *, steps: int = 4_000) -> None:
        """No more faults: everybody is up, and time passes until nothing is waiting any more."""
        for actor in self.actors:
            actor.fuse.left = None
            if not actor.alive:
                actor.start()
            self._reconnect(actor)
        for _ in range(steps):
            if not self.one_step() and self.settled():
                return
        raise AssertionError("The federation did not settle.")

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

    def version(self) -> int:
        newest: int = self.aggregator.journal.versions()[-1].version
        return newest

    def merged_since(self, version: int) -> dict[str, tuple[int, float]]:
        """The first update of each site that went into a version above this one: its staleness and weight."""
        rows = self.aggregator.journal.query(
            "SELECT site, staleness, weight FROM merged WHERE version > ? ORDER BY ordinal DESC", version
        )
        return {row["site"]: (row["staleness"], row["weight"]) for row in rows}

    def settled(self) -> bool:
        """Every version that was asked for is there, and no update waits anywhere."""
        return not self._waiting() and self.version() >= self.settings.versions and not self._buffered()

    def _waiting(self) -> bool:
        return any(site.alive and site.outbox.waiting() for site in self.sites)

    def _buffered(self) -> bool:
        journal: Journal = self.aggregator.journal
        return journal.last_ordinal() > journal.versions()[-1].through_ordinal

    def one_step(self, *, start_dead: bool = True) -> bool:
        """One actor with something to do does it; if there is none, time passes. False then."""
        busy = [actor for actor in self.actors if actor.alive and actor.events]
        if busy:
            self.random.choice(busy).step()
            return True
        self.now += 1.0
        for actor in self.actors:
            if actor.alive:
                actor.step()
            elif start_dead and self.random.random() < 0.3:
                actor.start()
        return False

    # ---- faults

    def _faults(self) -> list[Callable[[], None]]:
        return [self._light_a_fuse] * 6 + [
            self._cut,
            self._delete_updates,
            self._purge,
            self._duplicate,
            self._lose_models,
        ]

    def _light_a_fuse(self) -> None:
        self.random.choice(self.actors).fuse.left = self.random.randrange(6)

    def _cut(self) -> None:
        actor = self.random.choice(self.actors)
        if actor.link is not None and actor.link.connected:
            self.broker.disconnect(actor.link)
            self.broker.reconnect(actor.link)

    def _reconnect(self, actor: Actor) -> None:
        if actor.link is not None and not actor.link.connected:
            self.broker.reconnect(actor.link)

    def _delete_updates(self) -> None:
        self.broker.delete_queue(SiteNames(FEDERATION, self.random.choice(self.names)).updates)

    def _purge(self) -> None:
        names = SiteNames(FEDERATION, self.random.choice(self.names))
        self.broker.purge(self.random.choice([names.updates, names.receipts, names.rounds]))

    def _duplicate(self) -> None:
        self.broker.duplicate(SiteNames(FEDERATION, self.random.choice(self.names)).updates)

    def _lose_models(self) -> None:
        self.broker.delete_queue(models_stream(FEDERATION))

    # ---- what must hold

    def ledger(self) -> Ledger:
        return read_books(self.folder.journal_file, [(name, self.outbox(name)) for name in self.names]).balance()

    def replays(self) -> bool:
        """Folding the journal again gives every version's digest."""
        return all(one.same for one in replay(self.aggregator.journal, self.folder))

    def close(self) -> None:
        for actor in self.actors:
            actor.crash()
