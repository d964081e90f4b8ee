"""Questions to the broker, one after another, without waiting for an answer: what queues hold, and declarations.

A question is a generator: it yields requests, gets each answer where it yielded, or there has raised the error with
which the broker closed the channel, and returns the event that answers it. So it reads like a dialogue, while between
two of its lines the connection does other work.
"""

from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import pika
from pika.channel import Channel
from pika.exceptions import ChannelClosedByBroker
from pika.frame import Method

from broker.link import Declared, Inspected, LinkEvent, QueueState
from broker.rabbit_faults import NOT_FOUND, not_up_yet, said
from broker.rabbit_line import Line
from broker.topology import Topology

Request = Callable[..., object]  # a method of Channel that lacks no more than the channel and its callback
Question = Generator[Request, Any, LinkEvent]


def inspection(queues: tuple[str, ...]) -> Question:
    """What state each queue is in."""
    states: dict[str, QueueState | None] = {}
    for queue in queues:
        try:
            answer = yield partial(Channel.queue_declare, queue=queue, passive=True)
        except ChannelClosedByBroker as error:
            if error.reply_code != NOT_FOUND:
                raise
            if not not_up_yet(error):
                states[queue] = None
        else:
            states[queue] = QueueState(ready=answer.message_count, consumers=answer.consumer_count)
    return Inspected(states)


def declaration(topology: Topology) -> Question:
    """Declare in order; the first refusal ends it."""
    try:
        for exchange in topology.exchanges:
            yield partial(Channel.exchange_declare, exchange=exchange.name, exchange_type="topic", durable=True)
        for queue in topology.queues:
            yield partial(Channel.queue_declare, queue=queue.name, durable=True, arguments=dict(queue.arguments))
        for binding in topology.bindings:
            yield partial(Channel.queue_bind, queue=binding.queue, exchange=binding.exchange, routing_key=binding.key)
    except ChannelClosedByBroker as error:
        return Declared(f"The broker does not declare the federation's queues: {said(error).rstrip('.')}.")
    return Declared(None)


class Questions:
    """Asks on a channel of its own, which the broker closes with each "no". Only for the connection's thread.

    An error that a question does not catch ends the connection.
    """

    def __init__(self, line: Line, connection: pika.SelectConnection, deliver: Callable[[LinkEvent], None]) -> None:
        self._line, self._connection, self._deliver = line, connection, deliver
        self._waiting: deque[Question] = deque()
        self._current: Question | None = None
        self._channel: Channel | None = None

    def ask(self, question: Question) -> None:
        """Deliver the answer to `question` after those to the questions before it."""
        self._waiting.append(question)
        if self._current is None:
            self._next()

    def _next(self) -> None:
        self._current = self._waiting.popleft() if self._waiting else None
        if self._current is not None:
            self._go_on(self._current.send, None)

    def _go_on(self, resume: Callable[[Any], Request], outcome: object) -> None:
        """Give the current question what came of its last request, and make its next one."""
        try:
            request = resume(outcome)
        except StopIteration as end:
            self._deliver(end.value)
            self._next()
            return
        if self._channel is not None:
            request(self._channel, callback=self._line.guarded(self._on_answer))
            return
        opened = self._line.guarded(partial(self._on_open, request))
        self._connection.channel(on_open_callback=opened).add_on_close_callback(self._line.guarded(self._on_close))

    def _on_open(self, request: Request, channel: Channel) -> None:
        self._channel = channel
        request(channel, callback=self._line.guarded(self._on_answer))

    def _on_answer(self, frame: Method[Any]) -> None:
        assert self._current is not None
        self._go_on(self._current.send, frame.method)

    def _on_close(self, _channel: Channel, error: Exception) -> None:
        self._channel = None
        if self._current is not None and isinstance(error, ChannelClosedByBroker):
            self._go_on(self._current.throw, error)
