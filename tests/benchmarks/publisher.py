"""One site of the ingest benchmark: `python -m tests.benchmarks.publisher FOLDER`, ended by SIGTERM.

It does what a site worker does between outbox and receipt (seal, publish, confirm, read receipts) with payloads that
were encoded beforehand, so that the aggregator is what limits the run. At most `window` updates await their receipt.
It imports no torch. What it measured is in FOLDER/published.json when it has ended.
"""

import hashlib
import secrets
import sys
import time
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from broker.drive import Inbox
from broker.errors import FedqueueError
from broker.identity import PrivateKey, PublicKey
from broker.link import Confirmed, Delivery, Denied, Link, Outgoing, Returned, Up
from broker.messages import AGGREGATOR, Hello, Party, Peer, Receipt, UpdatePart, part_count, parts_of
from broker.rabbit import RabbitLink
from broker.serving import until_signalled
from broker.topology import SiteNames, updates_exchange
from tests.benchmarks.stage import Assignment, assignment_in


class Published(msgspec.Struct, frozen=True):
    """What one publisher measured: medians from publish to the broker's confirm and to the aggregator's receipt.

    `receipts` has, for each update, when it was published (on the machine's monotonic clock) and how long that took.
    """

    updates: int
    refused: int
    bytes_per_update: float
    confirm_s: float
    receipt_s: float
    receipts: list[tuple[float, float]]


class Publisher:
    """Keeps `window` updates between itself and the last receipt."""

    def __init__(self, assignment: Assignment, key: PrivateKey, link: Link) -> None:
        self._a, self._link = assignment, link
        self._party = Party(assignment.federation, assignment.site, key)
        self._aggregator = Peer(assignment.federation, AGGREGATOR, PublicKey.from_text(assignment.aggregator_key))
        self._names = SiteNames(assignment.federation, assignment.site)
        self._payloads = cycle([(hashlib.sha256(one).digest(), one) for one in _read(assignment.payloads)])
        self._incarnation = secrets.token_bytes(16)
        self._made = self._settled = self._bytes = self._greetings = 0
        self._sent: dict[int, float] = {}
        self._refused: set[int] = set()
        self._confirm_s: list[float] = []
        self._receipts: list[tuple[float, float]] = []

    def on(self, event: Any) -> None:
        """One event of the link."""
        match event:
            case Up():
                self._link.consume(self._names.receipts)
                self._greet()
            case Confirmed(("update", int(sequence))) if sequence in self._sent:
                self._confirm_s.append(time.monotonic() - self._sent[sequence])
            case Delivery():
                self._read_receipt(event)
            case Denied(reason) | Returned(_, reason):
                raise FedqueueError(reason)
        while self._greetings and self._made - self._settled < self._a.window and self._made != (self._a.updates or -1):
            self._publish()

    def published(self) -> Published:
        """The figures so far."""
        waits = [wait for _, wait in self._receipts]
        confirm, receipt = (median(one) if one else 0.0 for one in (self._confirm_s, waits))
        size = self._bytes / max(self._made, 1)
        return Published(self._settled, len(self._refused), size, confirm, receipt, self._receipts)

    def _greet(self) -> None:
        self._greetings += 1
        hello = Hello(
            self._a.task, self._incarnation, self._greetings, self._settled, self._made,
            self._a.layout_digest, 100, [], False,
        )  # fmt: skip
        self._send(self._names.hello_key, self._party.seal(hello, to=AGGREGATOR), ("hello", self._greetings))

    def _publish(self) -> None:
        self._made += 1
        digest, payload = next(self._payloads)
        self._sent[self._made] = time.monotonic()
        last = part_count(len(payload)) - 1
        whole = self._whole(digest, payload)
        for part, body in enumerate(parts_of(payload)):
            sealed = self._party.seal(msgspec.structs.replace(whole, part=part), to=AGGREGATOR, body=body)
            self._bytes += len(sealed)
            self._send(self._names.update_key, sealed, ("update" if part == last else "part", self._made))

    def _whole(self, digest: bytes, payload: bytes) -> UpdatePart:
        return UpdatePart(
            task=self._a.task,
            incarnation=self._incarnation,
            sequence=self._made,
            base_version=0,
            base_digest=self._a.base_digest,
            examples=100,
            steps=1,
            metrics=[],
            held_out=0,
            codec=self._a.codec,
            payload_bytes=len(payload),
            payload_digest=digest,
            part=0,
            parts=part_count(len(payload)),
            settled=self._settled,
            made_at=time.time(),
            training_s=0.0,
        )

    def _send(self, key: str, sealed: bytes, token: tuple[str, int]) -> None:
        self._link.publish(Outgoing(updates_exchange(self._a.federation), key, sealed, token))

    def _read_receipt(self, delivery: Delivery) -> None:
        receipt, _ = self._aggregator.open(delivery.body, recipients=frozenset({self._a.site}))
        if isinstance(receipt, Receipt) and receipt.incarnation == self._incarnation:
            now, self._settled = time.monotonic(), max(self._settled, receipt.through)
            self._refused |= {sequence for sequence, _ in receipt.refused}
            for sequence in [one for one in self._sent if one <= self._settled]:
                sent = self._sent.pop(sequence)
                self._receipts.append((sent, now - sent))
        self._link.ack(delivery)


def _read(paths: list[str]) -> list[bytes]:
    return [Path(path).read_bytes() for path in paths]


def main(folder: Path) -> None:
    """Publish until told to stop."""
    assignment, key = assignment_in(folder)
    inbox = Inbox()
    link = RabbitLink(assignment.url, inbox.put, name=f"fedqueue benchmark {assignment.site}")
    publisher = Publisher(assignment, key, link)
    with until_signalled() as stopping:
        link.open()
        try:
            while not stopping.is_set():
                publisher.on(inbox.get(0.2))
        finally:
            inbox.close()
            link.close()
    (folder / "published.json").write_bytes(msgspec.json.encode(publisher.published()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
