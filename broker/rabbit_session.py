"""What lives as long as the two consuming connections: their consumers and the questions to the broker.

Messages of queues come over one connection, everything else over the other: streams, declarations, the state of queues.
An answer comes behind all that the broker has sent on its connection, and what is asked must not wait until everything
that many sites have sent is dealt with.
"""

from functools import partial
from typing import NamedTuple

import pika

from broker.link import Offset
from broker.rabbit_consumers import Consumers, Deliver
from broker.rabbit_line import Line
from broker.rabbit_questions import Questions, declaration, inspection
from broker.topology import Topology


class Opened(NamedTuple):
    """A line with its connection."""

    line: Line
    connection: pika.SelectConnection


class Session:
    """See the module's docstring. Any thread: each command is done by the thread of its connection."""

    def __init__(self, queues: Opened, apart: Opened, deliver: Deliver) -> None:
        self._queues = Consumers(*queues, deliver)
        self._streams = Consumers(*apart, deliver)
        self._questions = Questions(*apart, deliver)
        self._ask = apart.line.post

    def consume(self, queue: str, *, prefetch: int, offset: Offset | None) -> None:
        """Start a consumer in place of a former one."""
        consumers = self._queues if offset is None else self._streams
        consumers.line.post(lambda: consumers.start(queue, prefetch=prefetch, offset=offset))

    def cancel(self, queue: str) -> None:
        """End a consumer, if there is one."""
        for consumers in (self._queues, self._streams):
            consumers.line.post(partial(consumers.cancel, queue))

    def inspect(self, queues: tuple[str, ...]) -> None:
        """Ask for the state of each queue; consumers that were cancelled before are not counted."""
        ask = partial(self._questions.ask, inspection(queues))
        self._queues.line.post(partial(self._queues.once_gone, frozenset(queues), partial(self._ask, ask)))

    def declare(self, topology: Topology) -> None:
        """Declare in order; the first refusal ends it."""
        self._ask(partial(self._questions.ask, declaration(topology)))
