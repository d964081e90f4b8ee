"""What lives as long as one consuming connection: its consumers, and the commands to be carried out on it.

Each consumer has a channel of its own, because the broker closes a channel for any error on it and only that queue's
consumer should end then. Everything here runs on the connection's own thread.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker
from pika.spec import Basic, BasicProperties

from broker.link import Cancelled, Consuming, Declared, Delivery, Inspected, LinkEvent, Offset, QueueState
from broker.rabbit_faults import ACCESS_REFUSED, NOT_FOUND, said
from broker.topology import Topology

Deliver = Callable[[LinkEvent], None]
OFFSET_HEADER: Final = "x-stream-offset"


class Consumer:
    """One consumer on one channel. Only for its connection's thread, except `Delivery.tag`, which is opaque."""

    def __init__(
        self, channel: BlockingChannel, deliver: Deliver, queue: str, *, prefetch: int, offset: Offset | None
    ) -> None:
        self.queue = queue
        self.over = False
        self._channel = channel
        self._deliver = deliver
        self._prefetch = prefetch
        self._is_stream = offset is not None
        self._unacked = 0
        self._deleted = False
        arguments = {OFFSET_HEADER: offset} if self._is_stream else {}
        channel.basic_qos(prefetch_count=prefetch)
        channel.add_on_cancel_callback(self._on_cancel)
        deliver_to: Any = self._on_message
        channel.basic_consume(queue, deliver_to, arguments=arguments)

    @property
    def ended_by_broker(self) -> str | None:
        """Why the broker ended this consumer, None while it goes on."""
        if self._deleted:
            return f"The queue {self.queue} was deleted or lost."
        if self._channel.is_closed:
            return f"The broker closed the channel on which {self.queue} was consumed."
        return None

    @property
    def can_close(self) -> bool:
        """Whether no delivery can be under way, or its return to the queue is allowed.

        pika rejects what arrives while it cancels. For a stream the broker answers that by closing the connection, so
        a stream's consumer is closed only when its prefetch is used up.
        """
        return not self._is_stream or self._unacked >= self._prefetch

    def ack(self, delivery_tag: int) -> None:
        """Ack, unless this consumer is over or its channel closed."""
        if not self.over and self._channel.is_open:
            self._unacked -= 1
            try:
                self._channel.basic_ack(delivery_tag)
            except ChannelClosedByBroker:
                return  # found by `ended_by_broker`

    def close(self) -> None:
        """End it; what it has not acked goes back to its queue."""
        self.over = True
        if self._channel.is_open:
            try:
                self._channel.close()
            except ChannelClosedByBroker:
                return

    def _on_message(
        self, _channel: BlockingChannel, method: Basic.Deliver, properties: BasicProperties, body: bytes
    ) -> None:
        self._unacked += 1
        if self.over:
            return
        header: Any = (properties.headers or {}).get(OFFSET_HEADER)
        offset = None if header is None else int(header)  # pika has an int class of its own
        tag = (self, method.delivery_tag)
        self._deliver(Delivery(self.queue, body, tag, properties.user_id, bool(method.redelivered), offset))

    def _on_cancel(self, _frame: object) -> None:
        self._deleted = True


class Session:
    """What lives as long as one connection: its consumers, and the commands to be carried out on it."""

    def __init__(self, connection: pika.BlockingConnection, deliver: Deliver) -> None:
        self.commands: deque[Callable[[Session], None]] = deque()
        self._connection = connection
        self._deliver = deliver
        self._consumers: dict[str, Consumer] = {}
        self._retiring: list[Consumer] = []
        self._spare: BlockingChannel | None = None

    def run(self, stopping: threading.Event) -> None:
        """Serve until `stopping` is set; raises what pika raises when the connection is lost."""
        while not stopping.is_set():
            self._connection.process_data_events(time_limit=None)
            while self.commands and not stopping.is_set():
                self.commands.popleft()(self)
            self._sweep()

    def consume(self, queue: str, *, prefetch: int, offset: Offset | None) -> None:
        """Start a consumer in place of a former one."""
        self.cancel(queue)
        channel = self._connection.channel()
        try:
            consumer = Consumer(channel, self._deliver, queue, prefetch=prefetch, offset=offset)
        except ChannelClosedByBroker as error:
            if error.reply_code == ACCESS_REFUSED:
                raise
            self._deliver(Cancelled(queue, _why(error, f"There is no queue {queue}.")))
            return
        self._consumers[queue] = consumer
        self._deliver(Consuming(queue))

    def cancel(self, queue: str) -> None:
        """End a consumer, if there is one."""
        if consumer := self._consumers.pop(queue, None):
            consumer.over = True
            self._retiring.append(consumer)
            self._sweep()

    def inspect(self, queues: tuple[str, ...]) -> None:
        """Ask for the state of each queue."""
        self._deliver(Inspected({queue: self._state_of(queue) for queue in queues}))

    def declare(self, topology: Topology) -> None:
        """Declare in order; the first refusal ends it."""
        try:
            self._declare(topology)
        except ChannelClosedByBroker as error:
            self._deliver(Declared(f"The broker does not declare the federation's queues: {said(error).rstrip('.')}."))
        else:
            self._deliver(Declared(None))

    def _declare(self, topology: Topology) -> None:
        channel = self._spare_channel()
        for exchange in topology.exchanges:
            channel.exchange_declare(exchange.name, "topic", durable=True)
        for queue in topology.queues:
            channel.queue_declare(queue.name, durable=True, arguments=queue.arguments)
        for binding in topology.bindings:
            channel.queue_bind(binding.queue, binding.exchange, binding.key)

    def _state_of(self, queue: str) -> QueueState | None:
        try:
            answer = self._spare_channel().queue_declare(queue, passive=True).method
        except ChannelClosedByBroker as error:
            if error.reply_code == NOT_FOUND:
                return None
            raise
        return QueueState(ready=answer.message_count, consumers=answer.consumer_count)

    def _spare_channel(self) -> BlockingChannel:
        """A channel for questions; the broker closes it with each "not found"."""
        if self._spare is None or self._spare.is_closed:
            self._spare = self._connection.channel()
        return self._spare

    def _sweep(self) -> None:
        """Report consumers that the broker ended, close those that are over and can be closed."""
        for consumer in [one for one in self._consumers.values() if one.ended_by_broker]:
            reason = consumer.ended_by_broker or ""
            del self._consumers[consumer.queue]
            consumer.close()
            self._deliver(Cancelled(consumer.queue, reason))
        for consumer in [one for one in self._retiring if one.can_close or one.ended_by_broker]:
            self._retiring.remove(consumer)
            consumer.close()


def _why(error: ChannelClosedByBroker, missing: str) -> str:
    return missing if error.reply_code == NOT_FOUND else f"The broker does not start it: {said(error).rstrip('.')}."
