"""An aggregator on a folder of its own: its stores are done for real, what it asks of the link is only written down."""

import hashlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from aggregator.downlink import Downlink
from aggregator.effects import Work
from aggregator.fold import Fold
from aggregator.journal import Journal
from aggregator.loop import AggregatorLoop
from aggregator.memory import remember
from aggregator.opening import initialise, reopen, rule_text
from aggregator.service import Performer
from aggregator.settings import Folder, Settings
from aggregator.strategies import Situation, fedbuff
from aggregator.workshop import Workshop, at_once
from broker.codecs import encode
from broker.drive import Ack, Cancel, Consume, Declare, Inspect, Publish, Tick
from broker.identity import PrivateKey
from broker.link import Confirmed, Delivery, Inspected, Offset, Outgoing, QueueState, Up
from broker.messages import AGGREGATOR, Hello, Message, Party, Peer, Receipt, UpdatePart, part_count, parts_of
from broker.topology import SiteNames, Topology
from broker.weights import Layout

Vector = NDArray[np.float32]
FEDERATION = "fed"
TASK = "sepsis"


def floats(*values: float) -> Vector:
    return np.array(values, dtype=np.float32)


class WrittenDown:
    """A link on which nothing happens: what it was asked for stays in `asked`."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def open(self) -> None:
        pass

    def consume(self, queue: str, *, prefetch: int = 1, offset: Offset | None = None) -> None:
        self.asked.append(Consume(queue, prefetch, offset))

    def cancel(self, queue: str) -> None:
        self.asked.append(Cancel(queue))

    def publish(self, message: Outgoing) -> None:
        self.asked.append(Publish(message))

    def ack(self, delivery: Delivery) -> None:
        self.asked.append(Ack(delivery))

    def inspect(self, queues: Iterable[str]) -> None:
        self.asked.append(Inspect(tuple(queues)))

    def declare(self, topology: Topology) -> None:
        self.asked.append(Declare(topology))

    def close(self) -> None:
        pass


@dataclass
class Sender:
    """A hospital that signs what a test wants it to."""

    party: Party
    layout_digest: bytes
    base_digest: bytes
    incarnation: bytes = bytes(range(16))

    @classmethod
    def named(cls, name: str, layout_digest: bytes, base_digest: bytes) -> "Sender":
        return cls(Party(FEDERATION, name, PrivateKey.generate()), layout_digest, base_digest)

    def fields(self, sequence: int, payload: bytes, **changes: Any) -> UpdatePart:
        plain = UpdatePart(
            task=TASK,
            incarnation=self.incarnation,
            sequence=sequence,
            base_version=0,
            base_digest=self.base_digest,
            examples=1,
            steps=10,
            metrics=[("auc", 0.5)],
            held_out=4,
            codec="float32",
            payload_bytes=max(len(payload), 1),
            payload_digest=hashlib.sha256(payload).digest(),
            part=0,
            parts=part_count(len(payload)),
            settled=0,
            made_at=1.0,
            training_s=0.5,
        )
        return msgspec.structs.replace(plain, **changes)

    def parts(self, sequence: int, delta: Vector, **changes: Any) -> list[Delivery]:
        """The deliveries of one update, one for each of its parts."""
        payload = changes.pop("payload", None) or encode(changes.get("codec", "float32"), delta)
        whole = self.fields(sequence, payload, **changes)
        return [
            self.sealed(msgspec.structs.replace(whole, part=changes.get("part", part)), body)
            for part, body in enumerate(parts_of(payload))
        ]

    def update(self, sequence: int, delta: Vector, **changes: Any) -> Delivery:
        (only,) = self.parts(sequence, delta, **changes)
        return only

    def hello(self, nonce: int = 1, **changes: Any) -> Delivery:
        plain = Hello(TASK, self.incarnation, nonce, 0, 0, self.layout_digest, 10, [], False)
        return self.sealed(msgspec.structs.replace(plain, **changes), b"")

    def sealed(self, message: Message, body: bytes) -> Delivery:
        sealed = self.party.seal(message, to=AGGREGATOR, body=body)
        queue = SiteNames(FEDERATION, self.party.name).updates
        return Delivery(queue, sealed, tag=object(), user_id=f"{FEDERATION}.{self.party.name}")


def pending(fold: Fold) -> Vector:
    """What the open buffer adds up to: its deltas by share and discount, not yet divided."""
    situation = Situation(fold.version + 1, tuple(fold.buffer), remember({}, fold.buffer, version=1), {})
    total = np.zeros_like(fold.model)
    for source, factor in fedbuff(situation, fold.strategy.worth).once.terms.items():
        for start, opened in fold.fetch(source, 0, len(total)):
            opened().add_to(total[start:], factor)
    return total


@dataclass
class Bench:
    """See the module's docstring. `boot` makes a new loop of what is on disk, as a start after a crash does.

    Work is done at once, or, where it is `slow`, waits for `finish`.
    """

    settings: Settings
    place: Folder
    model: Vector
    names: tuple[str, ...]
    key: PrivateKey = field(default_factory=PrivateKey.generate)
    now: float = 100.0
    slow: bool = False
    waiting: list[Work] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.layout = Layout.of({"w": self.model})
        self.journal = Journal(self.place.journal_file)
        rule = rule_text(self.settings.aggregation)
        initialise(self.journal, self.place, self.layout, self.model.copy(), rule, at=1.0)
        (first,) = self.journal.versions()
        self.sites = {name: Sender.named(name, self.layout.digest, first.digest) for name in self.names}
        self.journal.begin()
        for name, site in self.sites.items():
            self.journal.enrol(name, site.party.key.public, f"{FEDERATION}.{name}", at=1.0)
        self.journal.commit()
        self.boot()

    def boot(self) -> None:
        self.journal.close()
        self.journal = Journal(self.place.journal_file)
        layout, self.fold = reopen(self.journal, self.place, self.settings.aggregation)
        party = Party(FEDERATION, AGGREGATOR, self.key)
        rule = rule_text(self.settings.aggregation)
        downlink = Downlink(self.place, layout)
        self.loop = AggregatorLoop(self.settings, party, self.fold, self.journal, rule=rule, read=downlink.part)
        self.link, self.told = WrittenDown(), list[Any]()
        self.at_once, self.waiting = at_once(Workshop(self.journal, self.place, layout), self.told.append), []
        self.performer = Performer(self.journal, downlink, self.link, threading.Event(), work=self._work)

    def start(self) -> None:
        """Connect, hear a hello of every site, publish version 0."""
        self.up()
        for site in self.sites.values():
            self.feed(site.hello())
        self.link.asked.clear()

    def up(self) -> None:
        self.feed(Up())

    def feed(self, event: Any, *, first: int | None = None) -> list[Any]:
        """Handle an event and a tick, perform the effects or only the `first` of them; returns them all.

        What comes of work is handled too. Receipts are confirmed at once, everything else that is
        published waits for the test.
        """
        effects = self.loop.handle(event, self.now) + self.loop.handle(Tick(), self.now)
        self.performer.stage(effects if first is None else effects[:first])
        self.performer.flush()
        while self.told:
            more = self.loop.handle(self.told.pop(0), self.now)
            self.performer.stage(more if first is None else more[: max(first - len(effects), 0)])
            self.performer.flush()
            effects += more
        for message in published(effects):
            if isinstance(message.token, tuple) and message.token[0] == "receipt":
                self.loop.handle(Confirmed(message.token), self.now)
        return effects

    def finish(self) -> list[Any]:
        """Do the first piece of work that waits; all effects of what comes of it."""
        self.at_once(self.waiting.pop(0))
        return self.feed(self.told.pop(0))

    def _work(self, work: Work) -> None:
        if self.slow:
            self.waiting.append(work)
        else:
            self.at_once(work)

    def present(self, *names: str) -> list[Any]:
        """The broker says that these sites consume their rounds queues, and the others do not."""
        state = {
            SiteNames(FEDERATION, name).rounds: QueueState(ready=0, consumers=int(name in names)) for name in self.names
        }
        return self.feed(Inspected(dict(state)))

    def receipts(self, name: str, asked: Iterable[Any] | None = None) -> list[Receipt]:
        """The receipts for one site among what the link was asked."""
        key, peer = SiteNames(FEDERATION, name).receipt_key, Peer(FEDERATION, AGGREGATOR, self.key.public)
        bodies = [one.body for one in published(asked or self.link.asked) if one.routing_key == key]
        opened = [peer.open(body, recipients=frozenset({name}))[0] for body in bodies]
        return [one for one in opened if isinstance(one, Receipt)]

    @property
    def version(self) -> int:
        return self.fold.version

    @property
    def pending(self) -> Vector:
        return pending(self.fold)

    def close(self) -> None:
        self.journal.close()


def published(effects: Iterable[Any]) -> list[Outgoing]:
    return [one.message for one in effects if isinstance(one, Publish)]


def only(effects: Iterable[Any], kind: type[Any]) -> list[Any]:
    return [one for one in effects if isinstance(one, kind)]


def bench(path: Path, *, model: Vector | None = None, sites: tuple[str, ...] = ("A", "B"), **changes: Any) -> Bench:
    """A bench in `path`, with a snapshot of every version; `changes` are fields of `Settings`."""
    settings = Settings(FEDERATION, TASK, **({"snapshot_every_s": 0.0} | changes))
    return Bench(settings, Folder(path / "agg"), floats(0, 0, 0, 0) if model is None else model, sites)
