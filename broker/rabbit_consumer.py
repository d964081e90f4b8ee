"""The consuming half of a RabbitMQ link: a session as long as a connection lasts, and commands posted to it.

All work on the connection is done by its own thread. A command is bound to the session it was posted to, and is
forgotten with it.
"""

import threading
from collections.abc import Callable, Iterable

import pika

from broker.link import Delivery, Down, Offset, Up
from broker.rabbit_address import Address
from broker.rabbit_lifeline import Lifeline
from broker.rabbit_session import Consumer, Deliver, Session
from broker.topology import Topology


class ConsumingHalf:
    """Keeps a session alive and posts commands to it; a command given while not connected is dropped."""

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
        self._stopping = stopping
        self._deliver = deliver
        self._session: Session | None = None
        self._reported: str | None = None
        self.lifeline = Lifeline(
            address, name, stopping, self._serve, on_loss=self._report, on_refusal=on_refusal, heartbeat_s=heartbeat_s
        )

    def consume(self, queue: str, *, prefetch: int, offset: Offset | None) -> None:
        """See `Link.consume`."""
        self._post(lambda session: session.consume(queue, prefetch=prefetch, offset=offset))

    def cancel(self, queue: str) -> None:
        """See `Link.cancel`."""
        self._post(lambda session: session.cancel(queue))

    def ack(self, delivery: Delivery) -> None:
        """See `Link.ack`. The tag names the consumer, and so the connection, it came from."""
        match delivery.tag:
            case (Consumer() as consumer, int(number)):
                self._post(lambda _session: consumer.ack(number))

    def inspect(self, queues: Iterable[str]) -> None:
        """See `Link.inspect`."""
        names = tuple(queues)
        self._post(lambda session: session.inspect(names))

    def declare(self, topology: Topology) -> None:
        """See `Link.declare`."""
        self._post(lambda session: session.declare(topology))

    def _post(self, command: Callable[[Session], None]) -> None:
        session = self._session
        if session is not None:
            session.commands.append(command)
            self.lifeline.wake()

    def _serve(self, connection: pika.BlockingConnection) -> None:
        session = Session(connection, self._deliver)
        self._session = session
        self._reported = None
        self._deliver(Up())
        try:
            session.run(self._stopping)
        finally:
            self._session = None

    def _report(self, reason: str) -> None:
        """Say `Down` once for each reason, not for each attempt."""
        if reason != self._reported:
            self._reported = reason
            self._deliver(Down(reason))
