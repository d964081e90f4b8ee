"""The simulated aggregator: the service's loop and performer on an in-memory journal, beside the broker.

Its link is the in-memory one as it is: no latency, no limit. Snapshots are files in a temporary folder.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from aggregator.downlink import Downlink
from aggregator.effects import AddVersion, NoteMade, Registry
from aggregator.journal import VersionRow
from aggregator.loop import AggregatorLoop
from aggregator.opening import reopen, rule_text
from aggregator.service import Performer
from aggregator.settings import Folder, Settings
from aggregator.workshop import Workshop, at_once
from broker.identity import PrivateKey
from broker.memory import MemoryBroker, MemoryLink
from broker.messages import AGGREGATOR, Party
from deploy.simulation.actors import Actor, FusedLink
from deploy.simulation.clock import Clock
from deploy.simulation.signing import SimulatedJournal

Watch = Callable[[VersionRow, Any], None]


class AggregatorActor(Actor):
    """`watch` is told of every version, with its model, once it is journaled."""

    def __init__(
        self,
        clock: Clock,
        broker: MemoryBroker,
        settings: Settings,
        key: PrivateKey,
        *,
        journal: SimulatedJournal,
        folder: Folder,
        watch: Watch,
    ) -> None:
        super().__init__(clock, AGGREGATOR)
        self._broker, self._settings, self._folder, self._watch = broker, settings, folder, watch
        self._party = Party(settings.federation, AGGREGATOR, key)
        self.journal = journal
        self._link: MemoryLink | None = None
        self._decided: VersionRow | None = None

    def open(self) -> None:
        """From the journal."""
        aggregation = self._settings.aggregation
        layout, self._fold = reopen(self.journal, self._folder, aggregation)
        self._watched(self.journal.versions()[-1])
        downlink = Downlink(self._folder, layout)
        self.loop = AggregatorLoop(
            self._settings, self._party, self._fold, self.journal, rule=rule_text(aggregation), read=downlink.part
        )
        self._link = MemoryLink(self._broker, self.take, user=self.name)
        link = FusedLink(self._link, self.fuse)
        work = at_once(Workshop(self.journal, self._folder, layout), self.take)
        self.performer = Performer(self.journal, downlink, link, threading.Event(), work=work)
        link.open()

    def shut(self, *, orderly: bool) -> None:  # noqa: ARG002 - a service loses nothing either way
        """What was not committed is gone."""
        self.journal.rollback()
        assert self._link is not None
        self._link.close()

    def enrol(self, name: str, key: PrivateKey) -> None:
        """As the coordinator's command does, which the running service sees."""
        self.journal.begin()
        self.journal.enrol(name, key.public, name, at=self.clock.now)
        self.journal.commit()
        self.take(Registry(self.journal.sites()))

    def stage(self, effects: list[Any]) -> None:
        """Watch for versions on the way."""
        super().stage(effects)
        for effect in effects:
            match effect:
                case AddVersion(row):
                    self._decided = row
                case NoteMade(_, digest) if self._decided is not None:
                    self._watched(replace(self._decided, digest=digest))

    def _watched(self, row: VersionRow) -> None:
        """A version is made: that which was decided on last, or one before it, if a kill came before its commit."""
        decided, self._decided = self._decided, None
        if decided is not None and decided.version == row.version:
            self._watch(row, self._fold.model)
