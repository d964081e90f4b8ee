"""Who is enrolled, who is present, and whether their queues are there.

Presence is the broker's knowledge: a site is present while it consumes its rounds queue, and rests while it reads its
receipts alone. A missing queue (an operator's slip) is declared again before long, not at once for each message that
could not be routed.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from aggregator.effects import NotePresence, SetFact
from aggregator.journal import Enrolled
from broker.drive import Cancel, Consume, Declare, Inspect
from broker.link import QueueState
from broker.topology import SiteNames, Topology, federation_topology

PREFETCH: Final = 4  # what the broker has ready for the next commit; how much we hold is for the inbox to say
REPAIR_S: Final = 2.0
REPAIR_AGAIN_S: Final = 30.0
MISSED: Final = 20  # queues whose loss is remembered
Effects = list[Any]


class Attendance:
    """`present` is None until the broker has been asked once since connecting.

    `max_models_bytes` must be what the stream was declared with at set-up: the broker declares nothing of a topology
    in which one queue has other arguments than the one it has.
    """

    def __init__(
        self, federation: str, sites: Mapping[str, Enrolled], *, every_s: float, max_models_bytes: int
    ) -> None:
        self._federation, self._every_s, self._max_models_bytes = federation, every_s, max_models_bytes
        self.sites = dict(sites)
        self.present: set[str] | None = None
        self.connected = False
        self._ready: dict[str, int] = {}
        self._resting: list[str] | None = None
        self._missing: dict[str, float] = {}
        self._inspect_at = 0.0
        self._repair_at: float | None = None

    def deadline(self) -> float | None:
        """When to look or repair next."""
        if not self.connected:
            return None
        return self._inspect_at if self._repair_at is None else min(self._inspect_at, self._repair_at)

    def up(self, now: float) -> Effects:
        """Connected: consume every site's updates."""
        self.connected, self._inspect_at = True, now
        return self.consume_all()

    def down(self) -> None:
        """Not connected: nothing is known of anybody."""
        self.connected, self.present = False, None

    def consume_all(self) -> Effects:
        """Start the consumers, anew where they run."""
        return self._consume(self.sites)

    def enrolled(self, sites: Mapping[str, Enrolled]) -> Effects:
        """The registry has changed: follow it."""
        gone, new = sorted(set(self.sites) - set(sites)), sorted(set(sites) - set(self.sites))
        self.sites = dict(sites)
        if not self.connected:
            return []
        effects: Effects = [Cancel(SiteNames(self._federation, site).updates) for site in gone]
        return effects + self._consume(new)

    def _consume(self, sites: Iterable[str]) -> Effects:
        return [Consume(SiteNames(self._federation, site).updates, PREFETCH) for site in sites]

    def repair(self, now: float, *, after_s: float = REPAIR_S) -> None:
        """Declare the topology again before long."""
        if self._repair_at is None:
            self._repair_at = now + after_s

    def missing(self, queue: str, now: float) -> Effects:
        """A queue is gone: declare it again, and remember it for whoever wonders; nothing if that is known."""
        self.repair(now)
        if now - self._missing.pop(queue, -math.inf) < REPAIR_AGAIN_S:
            self._missing[queue] = now
            return []
        self._missing = dict([*self._missing.items(), (queue, now)][-MISSED:])
        return [SetFact("missing", json.dumps(self._missing).encode())]

    def declared(self, error: str | None, now: float) -> Effects:
        """The broker has declared everything, or has said why not."""
        if error is None:
            return self.consume_all() if self.connected else []
        self.repair(now, after_s=REPAIR_AGAIN_S)
        return []

    def seen(self, queues: Mapping[str, QueueState | None], now: float) -> Effects:
        """What the broker says of the sites' rounds queues."""
        known, present, effects = self.present, set[str](), Effects()
        for site in self.sites:
            state = queues.get(SiteNames(self._federation, site).rounds)
            here = state is not None and state.consumers > 0  # nobody can read a queue that is gone
            ready = 0 if state is None else state.ready
            if state is None:
                self.repair(now)
            present |= {site} if here else set()
            changed = known is None or here != (site in known)
            if changed or self._ready.get(site) != ready:
                self._ready[site] = ready
                effects.append(NotePresence(site, here, ready, now, changed))
        self.present = present
        return effects + self._note_resting(queues)

    def _note_resting(self, queues: Mapping[str, QueueState | None]) -> Effects:
        """Who reads receipts and no announcements: connected, and not to train now."""
        assert self.present is not None
        receipts = {site: queues.get(SiteNames(self._federation, site).receipts) for site in self.sites}
        reading = {site for site, state in receipts.items() if state is not None and state.consumers > 0}
        resting = sorted(reading - self.present)
        if resting == self._resting:
            return []
        self._resting = resting
        return [SetFact("resting", json.dumps(resting).encode())]

    def tick(self, now: float) -> Effects:
        """Look and repair when due."""
        effects: Effects = []
        if self.connected and self._repair_at is not None and now >= self._repair_at:
            self._repair_at = None
            effects.append(Declare(self._topology()))
        if self.connected and now >= self._inspect_at:
            self._inspect_at = now + self._every_s
            effects.append(Inspect(self._looked_at()))
        return effects

    def _looked_at(self) -> tuple[str, ...]:
        """The rounds queue of every site; of those that were not seen there last time, also the receipts queue."""
        names = [SiteNames(self._federation, site) for site in self.sites]
        unseen = [one.receipts for one in names if one.site not in (self.present or ())]
        return (*(one.rounds for one in names), *unseen)

    def _topology(self) -> Topology:
        whole = federation_topology(self._federation, max_models_bytes=self._max_models_bytes)
        for site in self.sites:
            own = SiteNames(self._federation, site).topology()
            whole = Topology(whole.exchanges, whole.queues + own.queues, whole.bindings + own.bindings)
        return whole
