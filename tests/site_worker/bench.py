"""A site's loop on an outbox in a folder: stores are done for real, link and trainer are a test's own hands."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from broker.codecs import encode
from broker.drive import Publish
from broker.identity import PrivateKey
from broker.link import Confirmed, Delivery, Outgoing, Up
from broker.messages import (
    AGGREGATOR,
    EVERYONE,
    Announcement,
    Hello,
    Message,
    ModelPart,
    Party,
    Peer,
    Receipt,
    part_count,
    parts_of,
)
from broker.weights import Layout, model_digest
from site_worker.availability import Availability
from site_worker.effects import KeepModelPart, KeepNonce, Mark, NoteActivity, NoteSeen, NoteSent, Settle, Store, Trained
from site_worker.loop import SiteLoop
from site_worker.models import ModelFolder
from site_worker.outbox import Made, Outbox
from tests.site_worker.drafts import drafted

Vector = NDArray[np.float32]
MODEL = np.arange(4, dtype=np.float32)
LAYOUT = Layout.of({"w": MODEL})
HELLO = Hello("sepsis", bytes(16), 1, 0, 0, LAYOUT.digest, 10, [], False)
PROBE_S = 30.0


def made(sequence: int = 0, *, base: int = 0, payload: bytes = b"payload", at: float = 100.0) -> Made:
    return Made(
        sequence, base, bytes(32), 10, 5, 4, (("auc", 0.5),), "float32", hashlib.sha256(payload).digest(), at, 0.5,
        len(payload),
    )  # fmt: skip


def model_of(version: int) -> Vector:
    """What the aggregator announces as this version."""
    return MODEL + np.float32(version)


def store(outbox: Outbox, effect: Any) -> None:
    match effect:
        case Store(update):
            outbox.store(update)
        case Settle(settled, at):
            outbox.settle(settled, at=at)
        case Mark(sequences, published):
            outbox.mark(sequences, published=published)
        case NoteSent(sequence, parts):
            outbox.note_sent(sequence, parts)
        case KeepNonce(nonce):
            outbox.next_nonce(nonce)
        case NoteSeen(version, digest):
            outbox.note_seen(version, digest)
        case NoteActivity(state, version, detail, at):
            outbox.note_activity(state, version, detail, at=at)


@dataclass
class Aggregator:
    """The other end, which signs what a test wants it to."""

    party: Party = field(default_factory=lambda: Party("fed", AGGREGATOR, PrivateKey.generate()))

    @property
    def peer(self) -> Peer:
        return Peer("fed", AGGREGATOR, self.party.key.public)

    def sealed(
        self, message: Message, queue: str, *, to: str, body: bytes = b"", offset: int | None = None
    ) -> Delivery:
        return Delivery(queue, self.party.seal(message, to=to, body=body), tag=object(), offset=offset)

    def announce(self, version: int, *, model: Vector | None = None, **changes: Any) -> Announcement:
        model = model_of(version) if model is None else model
        size = len(encode("float32", model))
        plain = Announcement(
            "sepsis", version, model_digest(LAYOUT.digest, model), bytes(32), LAYOUT.digest, len(model), "float32",
            size, 100 + version, part_count(size), "int8", [("steps", 5.0)], [], True, 1.0,
        )  # fmt: skip
        return msgspec.structs.replace(plain, **changes)

    def announced(self, announcement: Announcement, *, to: str = EVERYONE) -> Delivery:
        return self.sealed(announcement, "fq.fed.A.rounds", to=to)

    def model(self, announcement: Announcement, *, model: Vector | None = None) -> list[Delivery]:
        """The parts of a model as they lie in the stream."""
        model = model_of(announcement.version) if model is None else model
        return [
            self.sealed(
                ModelPart(announcement.version, announcement.model_digest, part, announcement.parts),
                "fq.fed.models",
                to=EVERYONE,
                body=body,
                offset=announcement.offset + part,
            )
            for part, body in enumerate(parts_of(encode("float32", model)))
        ]

    def receipt(self, incarnation: bytes, through: int, *, answers: int = 0, **changes: Any) -> Delivery:
        receipt = msgspec.structs.replace(Receipt(incarnation, through, [], [], answers), **changes)
        return self.sealed(receipt, "fq.fed.A.receipts", to="A")


@dataclass
class Site:
    """See the module's docstring. `boot` makes a new loop of the outbox, as a start after a crash does."""

    path: Path
    aggregator: Aggregator = field(default_factory=Aggregator)
    party: Party = field(default_factory=lambda: Party("fed", "A", PrivateKey.generate()))
    now: float = 100.0
    availability: Availability = field(default_factory=Availability)
    unfinished: Announcement | None = None

    def __post_init__(self) -> None:
        self.models = ModelFolder(self.path / "model", LAYOUT)
        self.outbox = Outbox(self.path / "outbox.db")
        self.boot()

    def boot(self) -> None:
        self.outbox.close()
        self.outbox = Outbox(self.path / "outbox.db")
        self.loop = SiteLoop(
            self.party,
            self.aggregator.peer,
            self.outbox,
            HELLO,
            self.models,
            probe_s=PROBE_S,
            availability=self.availability,
            unfinished=self.unfinished,
        )

    def feed(self, event: Any) -> list[Any]:
        effects = self.loop.handle(event, self.now)
        for effect in effects:
            if isinstance(effect, KeepModelPart):
                self.models.keep(effect.leg, effect.part, effect.offset, effect.body)
            store(self.outbox, effect)
        return effects

    def up(self) -> list[Any]:
        return self.feed(Up())

    def train_from(self, announcement: Announcement) -> list[Any]:
        """Announce, fetch, and hand back a trained update; returns the effects of that last event."""
        self.feed(self.aggregator.announced(announcement))
        for part in self.aggregator.model(announcement):
            self.feed(part)
        return self.trained(announcement)

    def trained(self, announcement: Announcement, payload: bytes = b"payload") -> list[Any]:
        drafted(self.outbox, payload)
        return self.feed(Trained(made(base=announcement.version, payload=payload, at=self.now)))

    def confirm(self, sequence: int, part: int = 0) -> list[Any]:
        return self.feed(Confirmed(("update", sequence, part)))

    def hellos(self, effects: Iterable[Any]) -> list[Hello]:
        peer = Peer("fed", "A", self.party.key.public)
        bodies = [one.body for one in published(effects) if one.routing_key == "hello.A"]
        found = [peer.open(body, recipients=frozenset({AGGREGATOR}))[0] for body in bodies]
        return [one for one in found if isinstance(one, Hello)]

    def state(self) -> tuple[str, int | None, str]:
        """What `status` would show."""
        (row,) = self.outbox._database.execute("SELECT state, version, detail FROM activity")
        return row["state"], row["version"], row["detail"]

    def detail(self) -> str:
        (state,) = self.outbox._database.execute("SELECT detail FROM activity")
        return str(state["detail"])


def published(effects: Iterable[Any]) -> list[Outgoing]:
    return [one.message for one in effects if isinstance(one, Publish)]


def only(effects: Iterable[Any], kind: type[Any]) -> list[Any]:
    return [one for one in effects if isinstance(one, kind)]
