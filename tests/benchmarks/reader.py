"""One site of the fan-out benchmark: `python -m tests.benchmarks.reader FOLDER`, ended by SIGTERM.

It says hello, waits for the announcement of a version and reads its parts from the stream, checking each as a site does
and keeping none. When it had the model is in FOLDER/read.json. It imports no torch.
"""

import secrets
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from broker.drive import Inbox
from broker.errors import FedqueueError
from broker.files import write_file
from broker.identity import PrivateKey, PublicKey
from broker.link import Delivery, Denied, Link, Outgoing, Returned, Up
from broker.messages import AGGREGATOR, EVERYONE, Announcement, Hello, ModelPart, Party, Peer
from broker.rabbit import RabbitLink
from broker.serving import until_signalled
from broker.topology import SiteNames, models_stream, updates_exchange
from tests.benchmarks.stage import Assignment, assignment_in


class Read(msgspec.Struct, frozen=True):
    """What one reader measured; times are on the machine's monotonic clock, `issued_at` on its wall clock."""

    issued_at: float
    announced: float
    begun: float
    done: float
    bytes: int


class Reader:
    """Reads one version."""

    def __init__(self, assignment: Assignment, key: PrivateKey, link: Link) -> None:
        self._a, self._link = assignment, link
        self._party = Party(assignment.federation, assignment.site, key)
        self._aggregator = Peer(assignment.federation, AGGREGATOR, PublicKey.from_text(assignment.aggregator_key))
        self._names = SiteNames(assignment.federation, assignment.site)
        self._stream = models_stream(assignment.federation)
        self._incarnation = secrets.token_bytes(16)
        self._announcement: Announcement | None = None
        self._announced = self._begun = 0.0
        self._parts: set[int] = set()
        self._bytes = 0

    def on(self, event: Any) -> Read | None:
        """One event of the link; the figures once the model is there."""
        match event:
            case Up():
                self._link.consume(self._names.rounds)
                self._greet()
            case Delivery(queue) if queue == self._stream:
                return self._take(event)
            case Delivery():
                self._hear(event)
            case Denied(reason) | Returned(_, reason):
                raise FedqueueError(reason)
        return None

    def _greet(self) -> None:
        hello = Hello(self._a.task, self._incarnation, 1, 0, 0, self._a.layout_digest, 100, [], False)
        sealed = self._party.seal(hello, to=AGGREGATOR)
        self._link.publish(Outgoing(updates_exchange(self._a.federation), self._names.hello_key, sealed, "hello"))

    def _hear(self, delivery: Delivery) -> None:
        message, _ = self._aggregator.open(delivery.body, recipients=frozenset({self._a.site, EVERYONE}))
        if isinstance(message, Announcement) and self._announcement is None:
            self._announcement, self._announced = message, time.monotonic()
            self._link.consume(self._stream, offset=message.offset)
        self._link.ack(delivery)

    def _take(self, delivery: Delivery) -> Read | None:
        told = self._announcement
        assert told is not None
        self._begun = self._begun or time.monotonic()
        message, body = self._aggregator.open(delivery.body, recipients=frozenset({EVERYONE}))
        if isinstance(message, ModelPart) and message.model_digest == told.model_digest:
            self._bytes += 0 if message.part in self._parts else len(body)
            self._parts.add(message.part)
        self._link.ack(delivery)
        if len(self._parts) < told.parts:
            return None
        self._link.cancel(self._stream)
        return Read(told.issued_at, self._announced, self._begun, time.monotonic(), self._bytes)


def main(folder: Path) -> None:
    """Read one version, then wait to be told to stop."""
    assignment, key = assignment_in(folder)
    inbox = Inbox()
    link = RabbitLink(assignment.url, inbox.put, name=f"fedqueue benchmark {assignment.site}")
    reader = Reader(assignment, key, link)
    with until_signalled() as stopping:
        link.open()
        try:
            while not stopping.is_set():
                if (read := reader.on(inbox.get(0.2))) is not None:
                    write_file(folder / "read.json", msgspec.json.encode(read))
        finally:
            inbox.close()
            link.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
