"""A federation under a virtual clock: production loops, performers, journal and outboxes; only network and training are
simulated. Any actor can be killed between any two things it does to its disk or its link, and starts again from disk.

One seed is one schedule: which actor takes its next event, what fails and when.
"""

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from aggregator.control import Control
from aggregator.effects import Decided
from aggregator.journal import Journal
from aggregator.opening import initialise, replay, rule_text
from aggregator.settings import Aggregation, Folder, Settings, Start
from broker.identity import PrivateKey
from broker.memory import MemoryBroker, MemoryLink
from broker.messages import AGGREGATOR
from broker.topology import SiteNames, Topology, federation_topology, models_stream, stream_bytes
from deploy.history import Ledger
from deploy.ledger import read_books
from tests.federation.actors import FEDERATION, LAYOUT, Actor, AggregatorActor, SiteActor, Sound


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
        self.control = Control()

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
        self.control = Control()
        for actor in self.actors:
            actor.fuse.left = None
            if not actor.alive:
                actor.start()
            self._reconnect(actor)
        self.aggregator.events.append(Decided(self.control))
        for site in self.sites:
            site.pause(paused=False)
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
            self._pause,
            self._decide,
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

    def _pause(self) -> None:
        """A hospital pauses its worker, or lets it go on."""
        site = self.random.choice(self.sites)
        site.pause(paused=not site.paused)

    def _decide(self) -> None:
        """The coordinator pauses the federation, or lets it go on."""
        self.control = Control(paused=not self.control.paused)
        if self.aggregator.alive:
            self.aggregator.events.append(Decided(self.control))

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
