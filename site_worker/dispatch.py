"""Getting what is in the outbox to the aggregator: one update at a time, part by part, until a receipt settles it.

A broker's confirm is not delivery: an operator can delete a queue with confirmed messages in it. So the worker says
hello now and then. A hello follows the updates through the same queue; the receipt that answers it therefore speaks of
every update that was published before it, and what it does not settle was lost and is published again. Of an update in
several parts it names those that are there: only the others are sent, also after a restart of either side.
"""

from typing import Any, Final

from broker.drive import Ack, Publish
from broker.errors import WireError
from broker.link import Delivery, Outgoing
from broker.messages import AGGREGATOR, Hello, Party, Peer, Receipt, part_bounds, part_count, parts_in
from broker.progress import Progress
from broker.topology import SiteNames, updates_exchange
from site_worker.effects import KeepNonce, Mark, NoteSent, SendPart, Settle
from site_worker.outbox import Outbox, Settled, State

RETRY_S: Final = 5.0
PATIENCE: Final = 10  # a hello is repeated after so many probe intervals, answered or not: it waits in a durable queue
Effects = list[Any]


class Dispatch:
    """See the module's docstring. `greeting` has the facts of a hello; number and state are filled in here."""

    def __init__(self, party: Party, aggregator: Peer, outbox: Outbox, greeting: Hello, *, probe_s: float) -> None:
        self._party, self._aggregator, self._greeting, self._probe_s = party, aggregator, greeting, probe_s
        self._incarnation = outbox.incarnation
        self._names = SiteNames(party.federation, party.name)
        waiting = outbox.waiting()
        self._bytes = {sequence: size for sequence, (size, _) in waiting.items()}
        self._published = {sequence for sequence, (_, published) in waiting.items() if published}
        self._confirmed = {one: set(range(outbox.sent(one))) for one in waiting if one not in self._published}
        self._made = outbox.last_sequence()
        self._settled_through = min(self._bytes, default=self._made + 1) - 1
        self._nonce = outbox.nonce()
        self._probed: set[int] = set()
        self._probed_parts: dict[int, set[int]] = {}
        self._progress: Progress | None = None
        self._sent_from: float | None = None  # None where it was begun before a restart
        self.now = 0.0
        self._answered = True
        self._hello_at: float | None = None
        self._said_at = 0.0
        self._sending: tuple[int, int] | None = None
        self._retry_at: float | None = None
        self._connected = False
        self.trouble: str | None = None
        self.outdated = False

    @property
    def waiting(self) -> int:
        """Updates not settled yet."""
        return len(self._bytes)

    def next_sequence(self) -> int:
        """The number of the next update."""
        return self._made + 1

    def deadline(self) -> float | None:
        """When to probe or retry next."""
        times = [self._retry_at, self._hello_at if self._connected else None]
        return min((time for time in times if time is not None), default=None)

    def up(self, now: float) -> Effects:
        """Connected: say hello."""
        self._connected = True
        return self.hello(now)

    def down(self) -> None:
        """Not connected; what was handed to the link stays with the link."""
        self._connected = False

    def hello(self, now: float, *, evicted: bool = False) -> Effects:
        """Say hello, which probes for everything the broker has confirmed so far."""
        self._nonce += 1
        self._probed, self._answered = set(self._published), False
        self._probed_parts = {sequence: set(parts) for sequence, parts in self._confirmed.items()}
        self._said_at, self._hello_at = now, now + self._probe_s * PATIENCE
        g = self._greeting
        hello = Hello(
            g.task, self._incarnation, self._nonce, self._settled_through, self._made, g.layout_digest, g.examples,
            g.statistics, evicted,
        )  # fmt: skip
        sealed = self._party.seal(hello, to=AGGREGATOR)
        exchange = updates_exchange(self._party.federation)
        message = Outgoing(exchange, self._names.hello_key, sealed, ("hello", self._nonce))
        return [KeepNonce(self._nonce), Publish(message)]

    def added(self, sequence: int, payload_bytes: int) -> Effects:
        """An update has been stored: send it when its turn comes."""
        self._made = sequence
        self._bytes[sequence] = payload_bytes
        self._confirmed[sequence] = set()
        return self.send()

    def send(self) -> Effects:
        """Start the next update unless one is on its way."""
        if self._sending is not None or self._retry_at is not None or self.outdated:
            return []
        unpublished = [sequence for sequence in self._bytes if sequence not in self._published]
        if not unpublished:
            return []
        return self._send_of(min(unpublished))

    def _send_of(self, sequence: int) -> Effects:
        """The next part of an update that the broker does not have."""
        parts, there = part_count(self._bytes[sequence]), self._confirmed[sequence]
        missing = next((part for part in range(parts) if part not in there), None)
        if missing is None:
            return self._is_published(sequence)
        if self._sending is None and not there:
            self._sent_from = self.now
        self._sending = (sequence, missing)
        return [SendPart(*self._sending, self._settled_through)]

    def _is_published(self, sequence: int) -> Effects:
        self._sending, self.trouble, self._progress = None, None, None
        del self._confirmed[sequence]
        self._published.add(sequence)
        took_s = None if self._sent_from is None else self.now - self._sent_from
        self._sent_from = None
        return [Mark((sequence,), published=True, took_s=took_s), *self.send()]

    def confirmed(self, token: Any, now: float) -> Effects:
        """The broker has a part: send the next, or the next update."""
        if token[0] != "update" or self._sending is None or token[1:] != self._sending:
            return []
        sequence, part = self._sending
        self._sending = None
        if sequence not in self._bytes:
            return self.send()
        there, parts = self._confirmed[sequence], part_count(self._bytes[sequence])
        there.add(part)
        if len(there) == parts:
            return self._is_published(sequence)
        self._note_progress(sequence, now)
        in_order = next(part for part in range(parts) if part not in there)
        return [NoteSent(sequence, in_order), *self._send_of(sequence)]

    def _note_progress(self, sequence: int, now: float) -> None:
        """Of an update in several parts."""
        done = min(len(self._confirmed[sequence]) * part_bounds(0)[1], self._bytes[sequence])
        if self._progress is None or self._progress.total != self._bytes[sequence] or self._progress.done > done:
            self._progress = Progress(self._bytes[sequence], now, done)
        self._progress.add(done - self._progress.done, now=now)

    @property
    def under_way(self) -> str:
        """What is being sent, where that takes several parts; "" otherwise."""
        if self._sending is None or self._progress is None:
            return ""
        return f"sending update {self._sending[0]}: {self._progress}"

    def returned(self, token: Any, reason: str, now: float) -> None:
        """No queue takes what we send: wait for the coordinator to declare it again."""
        self.trouble = reason
        self._retry_at = now + RETRY_S
        if token[0] == "hello":
            self._hello_at = now + RETRY_S
        elif token[0] == "update":
            self._sending = None

    def receipt(self, delivery: Delivery, now: float) -> Effects:
        """Settle what a receipt settles, and publish again what its answer shows to be lost."""
        try:
            receipt, _ = self._aggregator.open(delivery.body, recipients=frozenset({self._party.name}))
        except WireError as error:
            self.trouble = f"A receipt was ignored: {error}"
            return [Ack(delivery)]
        if not isinstance(receipt, Receipt) or receipt.incarnation != self._incarnation:
            return [Ack(delivery)]
        self.outdated = self.outdated or max((receipt.through, *receipt.beyond)) > self._made
        if self.outdated:  # restored from a copy: its next numbers are taken, so nothing said of them is about it
            self.trouble = "This outbox is older than what the aggregator has from it; start this site with a new one."
            return [Ack(delivery)]
        settled = tuple(self._settled_by(receipt))
        for one in settled:
            del self._bytes[one.sequence]
            self._published.discard(one.sequence)
            self._confirmed.pop(one.sequence, None)
        self._settled_through = max(self._settled_through, receipt.through)
        effects: Effects = [Settle(settled, now)] if settled else []
        return [*effects, Ack(delivery), *self._answer(receipt, now), *self.send()]

    def tick(self, now: float) -> Effects:
        """Retry and probe when due."""
        effects: Effects = []
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            effects += self.send()
        if self._connected and self._hello_at is not None and now >= self._hello_at:
            # Also when nothing is open, now and then: the announcement that it would train from may have been lost.
            due = not self._answered or self._published or now >= self._said_at + self._probe_s * PATIENCE
            self._hello_at = now + self._probe_s
            effects += self.hello(now) if due else []
        return effects

    def _settled_by(self, receipt: Receipt) -> list[Settled]:
        reasons, beyond = dict(receipt.refused), set(receipt.beyond)
        states: list[Settled] = []
        for sequence in self._bytes:
            if sequence <= receipt.through or sequence in beyond:
                state: State = "refused" if sequence in reasons else "accepted"
                states.append(Settled(sequence, state, reasons.get(sequence)))
        return states

    def _answer(self, receipt: Receipt, now: float) -> Effects:
        if receipt.answers != self._nonce or self._answered:
            return []
        self._answered = True
        self._hello_at = now + self._probe_s
        lost = tuple(sorted(self._probed & self._published))
        self._published -= set(lost)
        arrived = {sequence: parts_in(bits) for sequence, bits in receipt.arrived}
        for sequence in lost:
            self._confirmed[sequence] = arrived.get(sequence, set())
        for sequence, parts in self._probed_parts.items():
            if sequence in self._confirmed and sequence not in lost:
                self._confirmed[sequence] -= parts - arrived.get(sequence, set())
        return [Mark(lost, published=False)] if lost else []
