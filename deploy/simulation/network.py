"""The road between a site and the broker: latency, bandwidth both ways, and cuts in the middle of a transfer.

A `Wire` is a Link around the in-memory one. What is published or delivered takes bytes / bandwidth on a line that it
has to itself, and the latency; every other word takes the latency. A cut loses whatever is on the line: what was to be
delivered goes back to its queue, and what the broker had not confirmed to us is published again after reconnection,
from its first byte, as over RabbitMQ. So an update may arrive twice, when the confirm alone was lost.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from broker.link import Confirmed, Delivery, Down, LinkEvent, Offset, Outgoing, Returned, Up
from broker.memory import MemoryBroker, MemoryLink
from broker.topology import Topology
from deploy.simulation.clock import Clock

CUT: Final = "The connection was cut."


@dataclass(frozen=True)
class Road:
    """Seconds one way, and bytes a second from and to the site."""

    latency_s: float = 0.02
    up: float = math.inf
    down: float = math.inf


class Line:
    """One direction of a road: one transfer at a time. `carried` counts bytes that were really on it."""

    def __init__(self, clock: Clock, rate: float) -> None:
        self._clock, self._rate, self._free_at = clock, rate, 0.0
        self.carried = 0.0

    def carry(self, size: int) -> float:
        """Put a message on the line; when its last byte has left."""
        self.carried += size
        self._free_at = max(self._clock.now, self._free_at) + size / self._rate
        return self._free_at

    def cut(self) -> None:
        """Nothing more of what is on it goes over the line."""
        if self._free_at > self._clock.now:
            self.carried -= (self._free_at - self._clock.now) * self._rate
        self._free_at = self._clock.now


class Wire:
    """See the module's docstring. `late_s` delays single messages, for the fault of reordering; it takes them all."""

    def __init__(
        self, clock: Clock, broker: MemoryBroker, road: Road, take: Callable[[LinkEvent], None], *, user: str
    ) -> None:
        self._clock, self._broker, self._road, self._take = clock, broker, road, take
        self._link = MemoryLink(broker, self._from_broker, user=user)
        self.up, self.down = Line(clock, road.up), Line(clock, road.down)
        self._connection = 0  # what left under an older connection does not arrive
        self._connected = False
        self._unconfirmed: list[Outgoing] = []
        self._wanted: dict[str, int] = {}  # consumers by queue, as asked for here
        self._known: dict[str, int] = {}  # and as far as the broker knows
        self.twice = 0
        self.late_s = 0.0

    # ---- the network

    def cut(self) -> None:
        """Lose the connection and what is on the line."""
        if self._link.connected:
            self._connection += 1
            self._connected = False
            self.up.cut()
            self.down.cut()
            self._broker.disconnect(self._link, CUT)
            self._link.held.clear()  # it is published again with the rest

    def mend(self) -> None:
        """Let it connect again."""
        self._broker.reconnect(self._link)

    @property
    def whole(self) -> bool:
        """Whether there is a connection to be cut."""
        return self._link.connected

    def _from_broker(self, event: LinkEvent) -> None:
        match event:
            case Down():
                self._take(event)
            case Delivery(queue, body):
                at = self.down.carry(len(body)) + self._road.latency_s
                consumer = self._known.get(queue, 0)
                self._clock.at(at, partial(self._deliver, self._connection, consumer, event))
            case _:
                self._later(partial(self._arrive, self._connection, event))

    def _later(self, action: Callable[[], None]) -> None:
        self._clock.after(self._road.latency_s, action)

    def _deliver(self, connection: int, consumer: int, delivery: Delivery) -> None:
        """Unless the consumer it was for has been ended meanwhile, or the connection is gone."""
        if connection == self._connection and consumer == self._wanted.get(delivery.queue, 0):
            self._take(delivery)

    def _arrive(self, connection: int, event: LinkEvent) -> None:
        if connection != self._connection:
            return
        if isinstance(event, Confirmed | Returned) and not self._settle(event.token):
            return
        self._take_up(event)

    def _take_up(self, event: LinkEvent) -> None:
        if isinstance(event, Up):
            self._connected = True
            self._wanted.clear()
            self._known.clear()
            for message in self._unconfirmed:
                self._send(message)
        self._take(event)

    def _settle(self, token: Any) -> bool:
        """Forget a message that the broker has answered for; False if it had been answered for before."""
        for position, message in enumerate(self._unconfirmed):
            if message.token == token:
                del self._unconfirmed[position]
                return True
        return False

    def _send(self, message: Outgoing) -> None:
        for _ in range(1 + self.twice):
            at = self.up.carry(len(message.body)) + self._road.latency_s + self.late_s
            self._clock.at(at, partial(self._reach, self._connection, message))
        self.twice, self.late_s = 0, 0.0

    def _reach(self, connection: int, message: Outgoing) -> None:
        if connection == self._connection:
            self._link.publish(message)

    # ---- Link

    def open(self) -> None:
        """See `Link.open`."""
        self._link.open()

    def consume(self, queue: str, *, prefetch: int = 1, offset: Offset | None = None) -> None:
        """See `Link.consume`."""
        self._change(queue, partial(self._link.consume, queue, prefetch=prefetch, offset=offset))

    def cancel(self, queue: str) -> None:
        """See `Link.cancel`."""
        self._change(queue, partial(self._link.cancel, queue))

    def _change(self, queue: str, command: Callable[[], None]) -> None:
        if not self._connected:
            return
        number = self._wanted[queue] = self._wanted.get(queue, 0) + 1

        def arrive() -> None:
            self._known[queue] = number
            command()

        self._command(arrive)

    def publish(self, message: Outgoing) -> None:
        """See `Link.publish`."""
        self._unconfirmed.append(message)
        if self._connected:
            self._send(message)

    def ack(self, delivery: Delivery) -> None:
        """See `Link.ack`."""
        self._command(partial(self._link.ack, delivery))

    def inspect(self, queues: Iterable[str]) -> None:
        """See `Link.inspect`."""
        self._command(partial(self._link.inspect, tuple(queues)))

    def declare(self, topology: Topology) -> None:
        """See `Link.declare`."""
        self._command(partial(self._link.declare, topology))

    def _command(self, command: Callable[[], None]) -> None:
        if self._connected:
            self._later(partial(self._do, self._connection, command))

    def _do(self, connection: int, command: Callable[[], None]) -> None:
        if connection == self._connection:
            command()

    def close(self) -> None:
        """See `Link.close`."""
        self._connection += 1
        self._connected = False
        self.up.cut()
        self.down.cut()
        self._link.close()
        self._unconfirmed.clear()
