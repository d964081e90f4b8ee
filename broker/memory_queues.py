"""Queues and streams of the in-memory broker: what is ready, who reads it, what each reader has not acked yet.

Limits are those of RabbitMQ's quorum queues: only ready messages count; `drop-head` drops the oldest, also a
redelivered one; `reject-publish` refuses once the limit is exceeded, until four fifths of it are left.

Plain state without lock, clock or thread: the broker holds its lock around every call.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from broker.link import Delivery, Offset
from broker.topology import Argument

SOFT_LIMIT: Final = 0.8


@dataclass(frozen=True, slots=True)
class Message:
    """A published message as the broker keeps it."""

    body: bytes = field(repr=False)
    user_id: str
    redelivered: bool = False


@dataclass(eq=False, slots=True)
class Consumer:
    """One reader of one queue; `prefetch` bounds what it has not acked."""

    queue: str
    prefetch: int
    receive: Callable[[Delivery], None] = field(repr=False)
    next_offset: int = 0
    unacked: dict[int, Message] = field(default_factory=dict, repr=False)

    @property
    def has_credit(self) -> bool:
        """Whether it may be handed one more."""
        return len(self.unacked) < self.prefetch

    def hand(self, tag: int, message: Message, offset: int | None = None) -> None:
        """Deliver `message`, to be acked by `tag`."""
        self.unacked[tag] = message
        self.receive(Delivery(self.queue, message.body, tag, message.user_id, message.redelivered, offset))


class MessageQueue:
    """Each message goes to one consumer, and back to the head of the queue if that one leaves without an ack."""

    def __init__(self, arguments: Mapping[str, Argument], tags: Iterator[int]) -> None:
        self.consumers: list[Consumer] = []
        self.refusing = False
        self._ready: deque[Message] = deque()
        self._ready_bytes = 0
        self._tags = tags
        self._drops = arguments.get("x-overflow", "drop-head") == "drop-head"
        self._max_length = _limit(arguments, "x-max-length")
        self._max_bytes = _limit(arguments, "x-max-length-bytes")

    def __len__(self) -> int:
        return len(self._ready)

    def append(self, message: Message) -> None:
        """Take a published message."""
        self._ready.append(message)
        self._ready_bytes += len(message.body)
        self.dispatch()

    def append_copy(self) -> None:
        """Take the newest ready message once more, as after a publish whose confirm was lost."""
        if self._ready:
            self.append(self._ready[-1])

    def attach(self, consumer: Consumer, _offset: Offset | None) -> None:
        """Start a consumer."""
        self.consumers.append(consumer)
        self.dispatch()

    def detach(self, consumer: Consumer) -> None:
        """End a consumer; what it did not ack goes back to the head, in its old order."""
        self.consumers.remove(consumer)
        for message in reversed(consumer.unacked.values()):
            self._ready.appendleft(replace(message, redelivered=True))
            self._ready_bytes += len(message.body)
        consumer.unacked.clear()
        self.dispatch()

    def purge(self) -> None:
        """Forget what is ready."""
        self._ready.clear()
        self._ready_bytes = 0
        self._apply_limits()

    def dispatch(self) -> None:
        """Hand ready messages to consumers with credit, in turn; then apply the limits to the rest."""
        while self._ready and (consumer := next((one for one in self.consumers if one.has_credit), None)):
            self.consumers.remove(consumer)
            self.consumers.append(consumer)
            consumer.hand(next(self._tags), self._pop())
        self._apply_limits()

    def _pop(self) -> Message:
        message = self._ready.popleft()
        self._ready_bytes -= len(message.body)
        return message

    def _within(self, share: float) -> bool:
        return len(self._ready) <= share * self._max_length and self._ready_bytes <= share * self._max_bytes

    def _apply_limits(self) -> None:
        if self._drops:
            while not self._within(1.0):
                self._pop()
        elif not self._within(1.0):
            self.refusing = True
        elif self._within(SOFT_LIMIT):
            self.refusing = False


class Stream:
    """Each consumer reads all messages from its own offset; the oldest are evicted beyond a number of bytes."""

    refusing = False

    def __init__(self, arguments: Mapping[str, Argument], tags: Iterator[int]) -> None:
        self.consumers: list[Consumer] = []
        self._records: dict[int, Message] = {}
        self._bytes = 0
        self._end = 0
        self._tags = tags
        self._max_bytes = _limit(arguments, "x-max-length-bytes")

    def __len__(self) -> int:
        return len(self._records)

    def append(self, message: Message) -> None:
        """Write at the end, evict at the beginning."""
        self._records[self._end] = message
        self._bytes += len(message.body)
        self._end += 1
        while self._bytes > self._max_bytes and len(self._records) > 1:
            self._bytes -= len(self._records.pop(self._first).body)
        self.dispatch()

    def append_copy(self) -> None:
        """Write the newest message once more, as after a publish whose confirm was lost."""
        if self._records:
            self.append(self._records[self._end - 1])

    def attach(self, consumer: Consumer, offset: Offset | None) -> None:
        """Start a consumer at `offset`; without one, at the next publish."""
        match offset:
            case "first":
                consumer.next_offset = self._first
            case int():
                consumer.next_offset = offset
            case _:
                consumer.next_offset = self._end
        self.consumers.append(consumer)
        self.dispatch()

    def detach(self, consumer: Consumer) -> None:
        """End a consumer; nothing goes back, as nothing was taken out."""
        self.consumers.remove(consumer)
        consumer.unacked.clear()

    def purge(self) -> None:
        """Forget all messages; offsets go on."""
        self._records.clear()
        self._bytes = 0

    def dispatch(self) -> None:
        """Let each consumer read on as far as its credit goes; an evicted offset reads on at the oldest."""
        for consumer in self.consumers:
            while consumer.has_credit and consumer.next_offset < self._end and self._records:
                offset = max(consumer.next_offset, self._first)
                consumer.next_offset = offset + 1
                consumer.hand(next(self._tags), self._records[offset], offset)

    @property
    def _first(self) -> int:
        return next(iter(self._records), self._end)


Store = MessageQueue | Stream


def _limit(arguments: Mapping[str, Argument], name: str) -> float:
    """A limit of the queue's declaration, infinity if it has none."""
    return float(arguments.get(name, "inf"))
