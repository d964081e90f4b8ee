"""The consuming half of a RabbitMQ link: a session as long as its two connections last, and commands given to it.

The two connections come and go together, so that a loop sees one `Up` and one `Down`. A command is bound to the session
it was given to, and is forgotten with it.
"""

import threading
from collections.abc import Callable, Iterable

import pika

from broker.link import Delivery, Down, Offset, Up
from broker.rabbit_address import Address
from broker.rabbit_consumers import Consumer, Deliver
from broker.rabbit_lifeline import Lifeline
from broker.rabbit_line import Line, run_together
from broker.rabbit_session import Opened, Session
from broker.topology import Topology


class ConsumingHalf:
    """Keeps a session alive and gives commands to it; a command that comes while not connected is dropped."""

    def __init__(
        self,
        address: Address,
        name: str,
        stopping: threading.Event,
        deliver: Deliver,
        *,
        on_refusal: Callable[[str], None],
        heartbeat_s: int,
    ) -> None:
        self._parameters = [
            address.parameters(f"{name}:{role}", heartbeat_s=heartbeat_s) for role in ("consume", "ask")
        ]
        self._stopping = stopping
        self._deliver = deliver
        self._lock = threading.Lock()
        self._lines: list[Line] = []
        self._opened: dict[Line, pika.SelectConnection] = {}
        self._session: Session | None = None
        self._reported: str | None = None
        self.lifeline = Lifeline(address, name, stopping, self._live, on_loss=self._report, on_refusal=on_refusal)

    def wake(self) -> None:
        """Make the threads notice `stopping`."""
        for line in self._lines:
            line.end()

    def consume(self, queue: str, *, prefetch: int, offset: Offset | None) -> None:
        """See `Link.consume`."""
        if session := self._session:
            session.consume(queue, prefetch=prefetch, offset=offset)

    def cancel(self, queue: str) -> None:
        """See `Link.cancel`."""
        if session := self._session:
            session.cancel(queue)

    def ack(self, delivery: Delivery) -> None:
        """See `Link.ack`. The tag names the consumer, and so the connection, it came from."""
        match delivery.tag:
            case (Consumer() as consumer, int(number)):
                consumer.ack(number)

    def inspect(self, queues: Iterable[str]) -> None:
        """See `Link.inspect`."""
        if session := self._session:
            session.inspect(tuple(queues))

    def declare(self, topology: Topology) -> None:
        """See `Link.declare`."""
        if session := self._session:
            session.declare(topology)

    def _live(self) -> None:
        """Both connections, from login to the loss of either."""
        self._opened = {}
        self._lines = [Line(parameters, self._on_open) for parameters in self._parameters]
        try:
            run_together(*self._lines)
        finally:
            self._lines, self._session = [], None

    def _on_open(self, line: Line, connection: pika.SelectConnection) -> None:
        """The session begins with the connection that is open last; each line calls this on its own thread."""
        if self._stopping.is_set():  # since before there was a line to wake
            line.end()
            return
        with self._lock:
            self._opened[line] = connection
            if len(self._opened) < len(self._lines):
                return
        queues, apart = (Opened(one, self._opened[one]) for one in self._lines)
        self._session = Session(queues, apart, self._deliver)
        self._reported = None
        self._deliver(Up())

    def _report(self, reason: str) -> None:
        """Say `Down` once for each reason, not for each attempt."""
        if reason != self._reported:
            self._reported = reason
            self._deliver(Down(reason))
