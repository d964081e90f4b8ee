"""The consumers of one connection.

Each has a channel of its own, because the broker closes a channel for any error on it and only that queue's consumer
should end then. All but `Consumer.ack` runs on the connection's own thread, and nothing waits for an answer.
"""

from collections.abc import Callable
from typing import Any, Final

import pika
from pika.channel import Channel
from pika.exceptions import ChannelClosedByBroker
from pika.spec import Basic, BasicProperties

from broker.link import Cancelled, Consuming, Delivery, LinkEvent, Offset
from broker.rabbit_faults import ACCESS_REFUSED, NOT_FOUND, not_up_yet, said
from broker.rabbit_line import Line

Deliver = Callable[[LinkEvent], None]
OFFSET_HEADER: Final = "x-stream-offset"


class Consumer:
    """One consumer on one channel. `Delivery.tag` is the consumer and its own number of the message."""

    def __init__(self, consumers: "Consumers", queue: str, *, prefetch: int, offset: Offset | None) -> None:
        self.queue = queue
        self._consumers = consumers
        self._prefetch = prefetch
        self._arguments: dict[str, Any] = {} if offset is None else {OFFSET_HEADER: offset}
        self._channel: Channel | None = None
        self._running = False
        self._over = False

    def start(self, connection: pika.SelectConnection) -> None:
        """Open a channel and consume."""
        guarded = self._consumers.line.guarded
        self._channel = connection.channel(on_open_callback=guarded(self._on_open))
        self._channel.add_on_cancel_callback(guarded(self._on_cancel))
        self._channel.add_on_close_callback(guarded(self._on_close))

    def ack(self, delivery_tag: int) -> None:
        """Ack, unless this consumer is over by then. Any thread."""
        self._consumers.line.post(lambda: self._ack(delivery_tag))

    def close(self) -> bool:
        """End it; what it has not acked goes back to its queue. Whether `Consumers.left` will say when.

        Closing the channel is all. pika drops what still arrives on a closing channel, while after a cancel alone it
        would reject it, and when a message of a stream is rejected the broker closes the connection.
        """
        self._over = True
        if self._channel is None or self._channel.is_closed:
            return False
        self._channel.close()
        return True

    def _ack(self, delivery_tag: int) -> None:
        if self._channel is not None and self._channel.is_open:
            self._channel.basic_ack(delivery_tag)

    def _on_open(self, channel: Channel) -> None:
        guarded = self._consumers.line.guarded
        channel.basic_qos(prefetch_count=self._prefetch)
        channel.basic_consume(
            self.queue, guarded(self._on_message), arguments=self._arguments, callback=guarded(self._on_consuming)
        )

    def _on_consuming(self, _frame: object) -> None:
        self._running = True
        if not self._over:
            self._consumers.deliver(Consuming(self.queue))

    def _on_message(self, _channel: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        header: Any = (properties.headers or {}).get(OFFSET_HEADER)
        offset = None if header is None else int(header)  # pika has an int class of its own
        tag = (self, method.delivery_tag)
        self._consumers.deliver(Delivery(self.queue, body, tag, properties.user_id, bool(method.redelivered), offset))

    def _on_cancel(self, _frame: object) -> None:
        self._consumers.ended(self, f"The queue {self.queue} was deleted or lost.")

    def _on_close(self, _channel: Channel, error: Exception) -> None:
        if self._over:
            self._consumers.left(self)
        elif isinstance(error, ChannelClosedByBroker):
            if error.reply_code == ACCESS_REFUSED:
                raise error
            gone = error.reply_code == NOT_FOUND and not not_up_yet(error)
            self._consumers.ended(self, self._why(error), gone=gone)

    def _why(self, error: ChannelClosedByBroker) -> str:
        if self._running:
            return f"The broker closed the channel on which {self.queue} was consumed."
        if not_up_yet(error):
            return f"The queue {self.queue} is not up yet."
        if error.reply_code == NOT_FOUND:
            return f"There is no queue {self.queue}."
        return f"The broker does not start it: {said(error).rstrip('.')}."


class Consumers:
    """All consumers of a connection, one a queue. An account without permission to read ends the connection."""

    def __init__(self, line: Line, connection: pika.SelectConnection, deliver: Deliver) -> None:
        self.line, self.deliver = line, deliver
        self._connection = connection
        self._current: dict[str, Consumer] = {}
        self._leaving: set[str] = set()
        self._held: list[tuple[frozenset[str], Callable[[], None]]] = []

    def start(self, queue: str, *, prefetch: int, offset: Offset | None = None) -> None:
        """Start a consumer in place of a former one, once what that one has not acked is back in the queue."""
        self.cancel(queue)
        self._current[queue] = Consumer(self, queue, prefetch=prefetch, offset=offset)
        if queue not in self._leaving:
            self._current[queue].start(self._connection)

    def cancel(self, queue: str) -> None:
        """End a consumer, if there is one."""
        if consumer := self._current.pop(queue, None):
            self._leave(consumer)

    def once_gone(self, queues: frozenset[str], then: Callable[[], None]) -> None:
        """Call `then` when the broker is rid of the consumers of `queues` that were ended, and at once if it is."""
        self._held.append((queues, then))
        self._release()

    def ended(self, consumer: Consumer, reason: str, *, gone: bool = True) -> None:
        """The broker has ended a consumer."""
        del self._current[consumer.queue]
        self._leave(consumer)
        self.deliver(Cancelled(consumer.queue, reason, gone))

    def left(self, consumer: Consumer) -> None:
        """The channel of a consumer that is over is closed: the next of that queue may start."""
        self._leaving.discard(consumer.queue)
        if not self.line.is_open:
            return
        if successor := self._current.get(consumer.queue):
            successor.start(self._connection)
        self._release()

    def _leave(self, consumer: Consumer) -> None:
        if consumer.close():
            self._leaving.add(consumer.queue)

    def _release(self) -> None:
        ready = [then for queues, then in self._held if queues.isdisjoint(self._leaving)]
        self._held = [held for held in self._held if not held[0].isdisjoint(self._leaving)]
        for then in ready:
            then()
