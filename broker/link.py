"""The road between aggregator and sites, as both loops see it: effects go in, events come out.

A link owns its threads and connections. Its methods never block on the network and never raise for trouble on it;
what happens arrives as events at the `deliver` function given to the constructor, from several threads: the deliveries
of a queue in order, confirms of what may reach the same queue in order. `deliver` may block: that is the back-pressure,
the link reads no further meanwhile, whatever it is asked.

Contract, the same over RabbitMQ and in memory (tests/link holds both to it):

* `Up` comes once connected, and again after each reconnection. Consumers, unacked deliveries and inspections do not
  survive a `Down`: on `Up`, consume again. Acks of deliveries from before a `Down` are ignored, and while not connected
  every command but `publish` is dropped. A second `consume` of a queue replaces the first.
* `publish` is at least once: a message is published again, also across reconnections, until the broker confirms it
  (`Confirmed`) or says that no queue takes it (`Returned`). What may reach the same queue is published, and confirmed,
  in order; a queue that takes no messages holds up no others (broker/lanes.py). Nacks and blocked connections mean
  waiting, told by `Stuck`.
  All messages are persistent and mandatory. Declaring and publishing are not ordered: wait for `Declared`.
* `Down(reason)` says in one sentence what the link waits for. The link keeps trying, with backoff and jitter.
* `Denied(reason)` is final: password, certificate, permission. The link stops trying.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from broker.topology import Topology

ALARMED: Final = "takes no messages: its disk or memory is short"  # how a broker's alarm reads in `Stuck`


@dataclass(frozen=True, slots=True)
class Up:
    """Connected. Consumers must be started again."""


@dataclass(frozen=True, slots=True)
class Down:
    """Not connected, trying again; `reason` is one sentence."""

    reason: str


@dataclass(frozen=True, slots=True)
class Denied:
    """The broker refuses this account for good; `reason` names the remedy."""

    reason: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message from `queue`. `tag` means something to the link alone; `offset` is set for streams.

    `user_id` is the sender's account as checked by the broker, None if the sender did not give it.
    """

    queue: str
    body: bytes = field(repr=False)
    tag: Hashable = field(repr=False)
    user_id: str | None = None
    redelivered: bool = False
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The broker has the message with this token in every queue bound to it."""

    token: Hashable


@dataclass(frozen=True, slots=True)
class Stuck:
    """Publishing waits for `reason` (broker away, alarm, full queue); None: it flows again. Nothing to be done."""

    reason: str | None


@dataclass(frozen=True, slots=True)
class Returned:
    """The broker will never take the message with this token: no queue, no exchange, too large; `reason` says which."""

    token: Hashable
    reason: str


@dataclass(frozen=True, slots=True)
class Consuming:
    """The broker has accepted the consumer of `queue`; for a stream at "next", later publishes will be seen."""

    queue: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The broker ended, or would not start, the consumer of `queue`; `gone` unless the queue is only not up yet."""

    queue: str
    reason: str
    gone: bool = True


@dataclass(frozen=True, slots=True)
class QueueState:
    """Messages ready for delivery and consumers attached."""

    ready: int
    consumers: int


@dataclass(frozen=True, slots=True)
class Inspected:
    """Answer to `inspect`: a state for each queue asked for, None where there is no such queue.

    A queue whose node is not up yet, as when the broker has just been started, is left out.
    """

    queues: dict[str, QueueState | None]


@dataclass(frozen=True, slots=True)
class Declared:
    """Answer to `declare`: `error` is None, or one sentence that says what could not be declared."""

    error: str | None


LinkEvent = Up | Down | Denied | Delivery | Confirmed | Stuck | Returned | Consuming | Cancelled | Inspected | Declared

Offset = int | Literal["next", "first"]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish; `token` comes back once it is settled. Exchange "" routes to the queue `routing_key`."""

    exchange: str
    routing_key: str
    body: bytes = field(repr=False)
    token: Hashable
    content_type: str = "application/vnd.fedqueue"


class Link(Protocol):
    """See the module's docstring. Methods may be called from any thread."""

    def open(self) -> None:
        """Start connecting; `Up`, `Down` or `Denied` follows."""

    def consume(self, queue: str, *, prefetch: int = 1, offset: Offset | None = None) -> None:
        """Start a consumer (`Consuming`, then deliveries; or `Cancelled`). `offset` is for streams alone."""

    def cancel(self, queue: str) -> None:
        """End the consumer of `queue`; its unacked deliveries go back. Unknown queues are ignored."""

    def publish(self, message: Outgoing) -> None:
        """Publish at least once, in order of the calls with what may reach the same queue."""

    def ack(self, delivery: Delivery) -> None:
        """Settle a delivery. Ignored if it is from before a `Down` or `cancel`."""

    def inspect(self, queues: Iterable[str]) -> None:
        """Ask for the state of queues; `Inspected` follows unless the link goes down first."""

    def declare(self, topology: Topology) -> None:
        """Declare exchanges, queues, bindings; `Declared` follows unless the link goes down first. Idempotent."""

    def close(self) -> None:
        """End threads and connections; unconfirmed publishes are forgotten, unacked deliveries go back. Idempotent."""
