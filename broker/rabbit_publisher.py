"""The publishing half of a RabbitMQ link: messages in order, each again and again until the broker has settled it.

Alarms for disk or memory stop a connection that publishes from being read, hence a connection of its own. One message
is under way at a time: that keeps the order also when one of them is refused for a while.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, cast

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import (
    AMQPError,
    ChannelClosedByBroker,
    ConnectionWrongStateError,
    NackError,
    UnroutableError,
)
from pika.spec import PERSISTENT_DELIVERY_MODE
from tenacity import Retrying, retry_if_exception_type, stop_when_event_set

from broker.errors import LinkRefused
from broker.link import Confirmed, LinkEvent, Outgoing, Returned, Stuck
from broker.rabbit_address import Address
from broker.rabbit_faults import NOT_FOUND, said
from broker.rabbit_lifeline import BACKOFF, Lifeline

log = logging.getLogger(__name__)

PRECONDITION_FAILED: Final = 406


class PublishingHalf:
    """Owns the messages that are not settled yet. `trouble` says in one sentence what publishing waits for."""

    def __init__(
        self,
        address: Address,
        name: str,
        stopping: threading.Event,
        deliver: Callable[[LinkEvent], None],
        *,
        on_refusal: Callable[[str], None],
        heartbeat_s: int,
    ) -> None:
        self.trouble: str | None = None
        self._address = address
        self._parameters = address.parameters(name, heartbeat_s=heartbeat_s)
        self._stopping = stopping
        self._deliver = deliver
        self._unsettled: deque[Outgoing] = deque()
        self._connection: pika.BlockingConnection | None = None
        self.lifeline = Lifeline(address, name, stopping, self._live, on_loss=self._tell, on_refusal=on_refusal)

    def wake(self) -> None:
        """Make the thread look at `stopping` and at what is to be published. Nothing happens while not connected."""
        connection = self._connection
        if connection is not None:
            try:
                connection.add_callback_threadsafe(_nothing)
            except AMQPError:
                log.debug("The connection to %s closed before it could be woken.", self._address)

    def publish(self, message: Outgoing) -> None:
        """See `Link.publish`."""
        self._unsettled.append(message)
        self.wake()

    def _live(self) -> None:
        """One connection, from login to loss."""
        with _connected(self._parameters) as connection:
            self._connection = connection
            try:
                self._serve(connection)
            finally:
                self._connection = None

    def _serve(self, connection: pika.BlockingConnection) -> None:
        channel = _confirming(connection)
        while not self._stopping.is_set():
            if channel.is_closed:
                channel = _confirming(connection)
            if self._unsettled:
                self._settle(connection, channel, self._unsettled[0])
            else:
                self._tell(None)
                connection.process_data_events(time_limit=None)

    def _settle(self, connection: pika.BlockingConnection, channel: BlockingChannel, message: Outgoing) -> None:
        """Publish until it is confirmed or returned."""
        try:
            self._publish(connection, channel, message)
            event: LinkEvent = Confirmed(message.token)
        except UnroutableError:
            reason = f"No queue takes messages of exchange {message.exchange!r} with key {message.routing_key!r}."
            event = Returned(message.token, reason)
        except ChannelClosedByBroker as error:
            event = Returned(message.token, self._refusal(error, message))
        self._tell(None)
        self._unsettled.popleft()
        self._deliver(event)

    def _publish(self, connection: pika.BlockingConnection, channel: BlockingChannel, message: Outgoing) -> None:
        """Publish, again after a pause for each nack: the queue is full, or its leader moves."""
        attempts = Retrying(
            retry=retry_if_exception_type(NackError),
            wait=BACKOFF,
            sleep=partial(self._pause, connection),
            stop=stop_when_event_set(self._stopping),
            before_sleep=lambda _state: self._tell(f"The queue behind {message.routing_key!r} takes no more messages."),
            reraise=True,
        )
        properties = pika.BasicProperties(
            content_type=message.content_type, delivery_mode=PERSISTENT_DELIVERY_MODE, user_id=self._address.user
        )
        send: Any = channel.basic_publish
        attempts(send, message.exchange, message.routing_key, message.body, properties, mandatory=True)

    def _pause(self, connection: pika.BlockingConnection, seconds: float) -> None:
        """Wait, but keep the connection alive and notice `stopping`."""
        deadline = time.monotonic() + seconds
        while not self._stopping.is_set() and (left := deadline - time.monotonic()) > 0:
            connection.process_data_events(time_limit=left)

    def _refusal(self, error: ChannelClosedByBroker, message: Outgoing) -> str:
        """Why this message can never be published; errors about the account or the broker are raised on."""
        if error.reply_code == NOT_FOUND:
            return f"There is no exchange {message.exchange}."
        if error.reply_code != PRECONDITION_FAILED:
            raise error
        if "user_id" in str(error.reply_text):
            raise LinkRefused(
                f"The broker at {self._address} knows this account under another name than {self._address.user!r}: "
                "correct the address."
            ) from error
        return f"The broker refuses the message: {said(error).rstrip('.')}."

    def _tell(self, trouble: str | None) -> None:
        """Keep what publishing waits for, and say so when it changes."""
        if trouble != self.trouble:
            self.trouble = trouble
            self._deliver(Stuck(trouble))


def _confirming(connection: pika.BlockingConnection) -> BlockingChannel:
    channel = connection.channel()
    channel.confirm_delivery()
    return channel


@contextmanager
def _connected(parameters: pika.ConnectionParameters) -> Iterator[pika.BlockingConnection]:
    """A connection, open, and closed in the end if it still is."""
    connection = pika.BlockingConnection(parameters)
    if connection.is_closed:  # pika misses a loss in the very step in which it opens, and would never free its sockets
        cast("Any", connection)._cleanup()
        raise ConnectionWrongStateError
    try:
        yield connection
    finally:
        if connection.is_open:
            try:
                connection.close()
            except (AMQPError, OSError) as error:
                log.debug("The connection closed with %s.", type(error).__name__)


def _nothing() -> None:
    """The callback that wakes a connection's thread."""
