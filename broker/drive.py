"""What threads need to drive a loop: an inbox bounded in bytes, the effects both loops share, and the driving itself.

A loop (aggregator/loop.py, site_worker/loop.py) does no I/O: it takes one event and returns effects, in the order in
which they must happen. A driver performs them. Killing the driver between any two effects must lose nothing; that is
the contract that the fault tests and a simulator's virtual clock rely on.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from broker.errors import LinkRefused
from broker.link import Delivery, Denied, Link, Offset, Outgoing
from broker.topology import Topology

BATCH_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish at least once; `Confirmed` or `Returned` with the message's token follows."""

    message: Outgoing


@dataclass(frozen=True, slots=True)
class Consume:
    """Start a consumer."""

    queue: str
    prefetch: int = 1
    offset: Offset | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a consumer."""

    queue: str


@dataclass(frozen=True, slots=True)
class Ack:
    """Settle a delivery with the broker."""

    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Inspect:
    """Ask for the state of queues."""

    queues: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Declare:
    """Declare a topology."""

    topology: Topology


LinkEffect = Publish | Consume | Cancel | Ack | Inspect | Declare


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; the loop looks at its deadlines."""


def perform_on(link: Link, effect: LinkEffect) -> None:
    """Do one of the effects that only the link sees."""
    match effect:
        case Publish(message):
            link.publish(message)
        case Consume(name, prefetch, offset):
            link.consume(name, prefetch=prefetch, offset=offset)
        case Cancel(name):
            link.cancel(name)
        case Ack(delivery):
            link.ack(delivery)
        case Inspect(queues):
            link.inspect(queues)
        case Declare(topology):
            link.declare(topology)


class Inbox:
    """Events for a loop, in order. Thread-safe.

    `put` blocks while `max_bytes` of deliveries wait: the link then stops reading from its socket, and TCP holds the
    broker back. So less than `max_bytes` and one more delivery waits. Other events pass at once.
    """

    def __init__(self, *, max_bytes: int = 8 << 20) -> None:
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._room = threading.Condition()
        self._max_bytes, self._waiting_bytes, self._closed = max_bytes, 0, False

    def put(self, event: object) -> None:
        """Add an event; blocks for a delivery while the inbox is full."""
        if isinstance(event, Delivery):
            with self._room:
                self._room.wait_for(lambda: self._closed or self._waiting_bytes < self._max_bytes)
                self._waiting_bytes += len(event.body)
        self._events.put(event)

    def get(self, timeout_s: float) -> Any:
        """The next event, or None after `timeout_s`."""
        try:
            event = self._events.get(timeout=max(timeout_s, 0.0)) if timeout_s > 0 else self._events.get_nowait()
        except queue.Empty:
            return None
        if isinstance(event, Delivery):
            with self._room:
                self._waiting_bytes -= len(event.body)
                self._room.notify_all()
        return event

    def close(self) -> None:
        """Let every blocked `put` pass: nobody will read on, and the link must be able to end its threads."""
        with self._room:
            self._closed = True
            self._room.notify_all()


class Loop(Protocol):
    """A state machine without I/O."""

    def handle(self, event: Any, now: float) -> list[Any]:
        """Change state and return the effects, in order. `now` is in seconds since the epoch."""

    def deadline(self) -> float | None:
        """When the loop wants a `Tick` at the latest."""


def steady_clock() -> Callable[[], float]:
    """Seconds since the epoch by the wall clock of now, going on steadily: setting the clock moves no deadline."""
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


class Performer(Protocol):
    """Does what a loop asks for, in order."""

    def stage(self, effects: Sequence[Any]) -> None:
        """Take effects: stores at once (a later event may read them back), everything else at the next `flush`."""

    def flush(self) -> None:
        """Make the stores durable, then do the rest."""


def drive(
    loop: Loop,
    inbox: Inbox,
    performer: Performer,
    *,
    stopping: Callable[[], bool],
    clock: Callable[[], float] = time.time,
    batch: int = 1,
    patience_s: float = 0.5,
) -> None:
    """Feed events to `loop` and its effects to `performer`, until `stopping`. LinkRefused ends it at once.

    Up to `batch` events that already wait, or BATCH_BYTES of deliveries, share one flush and their stores one commit.
    """
    while not stopping():
        deadline = loop.deadline()
        timeout_s = patience_s if deadline is None else min(patience_s, deadline - clock())
        for event in _waiting(inbox, timeout_s, batch):
            if isinstance(event, Denied):
                raise LinkRefused(event.reason)
            performer.stage(loop.handle(event, clock()))
        performer.stage(loop.handle(Tick(), clock()))
        performer.flush()


def _waiting(inbox: Inbox, timeout_s: float, most: int) -> Iterator[Any]:
    taken_bytes = 0
    for position in range(most):
        event = inbox.get(timeout_s if position == 0 else 0)
        if event is None:
            return
        yield event
        taken_bytes += len(event.body) if isinstance(event, Delivery) else 0
        if taken_bytes >= BATCH_BYTES:
            return
