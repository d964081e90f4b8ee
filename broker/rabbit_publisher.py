"""The publishing half of a RabbitMQ link: every message again and again until the broker has settled it.

Alarms for disk or memory stop a connection that publishes from being read, hence a connection of its own. A confirm
comes when the message is on the broker's disk, so the messages of several lanes are under way at once, one of each:
that keeps their order also when one of them is refused for a while.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

import pika
from pika.exceptions import ChannelClosedByBroker
from tenacity import RetryCallState, Retrying

from broker.errors import LinkRefused
from broker.lanes import Lane, Lanes
from broker.link import Confirmed, LinkEvent, Outgoing, Returned, Stuck
from broker.rabbit_address import Address
from broker.rabbit_confirms import Confirming
from broker.rabbit_faults import NOT_FOUND, said
from broker.rabbit_lifeline import BACKOFF, Lifeline
from broker.rabbit_line import Line

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
        self._given: deque[Outgoing] = deque()  # by any thread; all else is for the connection's own
        self._lanes = Lanes()
        self._line: Line | None = None
        self._channel: Confirming | None = None
        self.lifeline = Lifeline(address, name, stopping, self._live, on_loss=self._tell, on_refusal=on_refusal)

    def wake(self) -> None:
        """Make the thread notice `stopping`."""
        if line := self._line:
            line.end()

    def publish(self, message: Outgoing) -> None:
        """See `Link.publish`."""
        self._given.append(message)
        if line := self._line:
            line.post(self._send)

    def _live(self) -> None:
        """One connection, from login to loss."""
        self._line = line = Line(self._parameters, self._on_open)
        try:
            line.run()
        finally:
            self._line = self._channel = None
            self._lanes.start_again()

    def _on_open(self, line: Line, connection: pika.SelectConnection) -> None:
        if self._stopping.is_set():  # since before there was a line to wake
            line.end()
            return
        if not self._lanes and not self._given:
            self._tell(None)
        self._channel = Confirming(line, connection, self)

    def _send(self) -> None:
        """Publish what may go now."""
        while self._given:
            self._lanes.add(self._given.popleft())
        if self._channel is not None and self._channel.ready:
            for lane in self._lanes.starting():
                self._channel.publish(lane, self._address.user)

    def ready(self) -> None:
        """The channel takes messages."""
        self._send()

    def confirmed(self, lane: Lane) -> None:
        """The broker has the first message of a lane."""
        self._settle(lane, Confirmed(lane.messages[0].token))

    def returned(self, lane: Lane) -> None:
        """No queue takes the first message of a lane."""
        message = lane.messages[0]
        reason = f"No queue takes messages of exchange {message.exchange!r} with key {message.routing_key!r}."
        self._settle(lane, Returned(message.token, reason))

    def nacked(self, lane: Lane) -> None:
        """The queue is full, or its leader moves: the same message again after a pause."""
        pause_s = _pause_s(self._lanes.refused(lane))
        self._tell_of_lanes()
        if line := self._line:
            line.call_later(pause_s, lambda: self._release(lane))

    def closed(self, channel: Confirming, error: Exception) -> None:
        """The broker has closed the channel for one of the messages under way; if there are more, find out for which.

        All are published again, one by one. Errors about the account or the broker are raised on.
        """
        if not isinstance(error, ChannelClosedByBroker):
            return
        reasons = {lane.name: self._refusal(error, lane.messages[0]) for lane in channel.under_way()}
        if len(reasons) == 1:
            ((name, reason),) = reasons.items()
            lane = self._lanes[name]
            self._settle(lane, Returned(lane.messages[0].token, reason), send=False)
        self._lanes.careful = self._lanes.start_again() > 0
        if line := self._line:
            self._channel = Confirming(line, channel.connection, self)

    def _settle(self, lane: Lane, event: LinkEvent, *, send: bool = True) -> None:
        self._lanes.settled(lane)
        self._lanes.careful = self._lanes.careful and bool(self._lanes)
        self._tell_of_lanes()
        self._deliver(event)
        if send:
            self._send()

    def _release(self, lane: Lane) -> None:
        lane.held = False
        self._send()

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

    def _tell_of_lanes(self) -> None:
        held = self._lanes.refused_by_queue()
        key = None if held is None else held.messages[0].routing_key
        self._tell(None if held is None else f"The queue behind {key!r} takes no more messages.")

    def _tell(self, trouble: str | None) -> None:
        """Keep what publishing waits for, and say so when it changes."""
        if trouble != self.trouble:
            self.trouble = trouble
            self._deliver(Stuck(trouble))


def _pause_s(refusals: int) -> float:
    """How long to wait after so many refusals in a row."""
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = refusals
    return float(BACKOFF(state))
