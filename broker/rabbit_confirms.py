"""A channel on which the broker confirms what is published, and what it says of which message.

Delivery tags count the messages of a channel. A return names no tag, but its exchange and key name the lane, and a lane
has one message under way. All of it runs on the connection's own thread.
"""

from typing import Any, Protocol

import pika
from pika.channel import Channel
from pika.spec import PERSISTENT_DELIVERY_MODE, Basic, BasicProperties

from broker.lanes import Lane, LaneName, lane_of
from broker.rabbit_line import Line


class Publisher(Protocol):
    """Who is told how the first messages of lanes fare."""

    def ready(self) -> None:
        """The channel takes messages."""

    def confirmed(self, lane: Lane) -> None:
        """The broker has it."""

    def returned(self, lane: Lane) -> None:
        """No queue takes it."""

    def nacked(self, lane: Lane) -> None:
        """Its queue does not take it now."""

    def closed(self, channel: "Confirming", error: Exception) -> None:
        """The channel is gone, and what is `under_way` on it with it."""


class Confirming:
    """See the module's docstring."""

    def __init__(self, line: Line, connection: pika.SelectConnection, publisher: Publisher) -> None:
        self.connection, self.ready = connection, False
        self._guarded, self._publisher = line.guarded, publisher
        self._tags: dict[int, Lane] = {}
        self._last_tag = 0
        self._returned: set[LaneName] = set()
        self._channel = connection.channel(on_open_callback=line.guarded(self._on_open))
        self._channel.add_on_close_callback(line.guarded(self._on_close))
        self._channel.add_on_return_callback(line.guarded(self._on_return))

    def publish(self, lane: Lane, user: str) -> None:
        """Publish the first message of a lane."""
        message = lane.messages[0]
        properties = BasicProperties(
            content_type=message.content_type, delivery_mode=PERSISTENT_DELIVERY_MODE, user_id=user
        )
        self._last_tag += 1
        self._tags[self._last_tag] = lane
        self._channel.basic_publish(message.exchange, message.routing_key, message.body, properties, mandatory=True)

    def under_way(self) -> list[Lane]:
        """The lanes whose first messages are not settled."""
        return list(self._tags.values())

    def _on_open(self, channel: Channel) -> None:
        channel.confirm_delivery(self._guarded(self._on_answer), callback=self._guarded(self._on_confirming))

    def _on_confirming(self, _frame: object) -> None:
        self.ready = True
        self._publisher.ready()

    def _on_answer(self, frame: Any) -> None:
        """A confirm or a nack, of one message or of all up to it."""
        answer, tag = frame.method, frame.method.delivery_tag
        answered = [one for one in self._tags if one == tag or (answer.multiple and one <= tag)]
        for lane in [self._tags.pop(one) for one in answered]:
            if isinstance(answer, Basic.Nack):
                self._publisher.nacked(lane)
            elif lane.name in self._returned:  # what is returned is confirmed as well, afterwards
                self._returned.discard(lane.name)
                self._publisher.returned(lane)
            else:
                self._publisher.confirmed(lane)

    def _on_return(self, _channel: object, method: Basic.Return, _properties: object, _body: bytes) -> None:
        self._returned.add(lane_of(method.exchange or "", method.routing_key or ""))

    def _on_close(self, _channel: object, error: Exception) -> None:
        self.ready = False
        self._publisher.closed(self, error)
