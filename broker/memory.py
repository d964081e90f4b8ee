"""The in-memory broker and its link: RabbitMQ's observable behaviour without a network, a thread or a clock.

It is for tests and the simulator, so it is deterministic: an effect is carried out, and what follows from it is
handed to the `deliver` functions concerned, before the call returns. `deliver` never runs under the lock; what it
causes for its own link comes after it, never inside it. Faults are methods of `MemoryBroker`.
"""

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from broker.lanes import LaneName, lane_of
from broker.link import (
    Cancelled,
    Confirmed,
    Consuming,
    Declared,
    Delivery,
    Down,
    Inspected,
    LinkEvent,
    Offset,
    Outgoing,
    QueueState,
    Returned,
    Stuck,
    Up,
)
from broker.memory_queues import Consumer, Message, MessageQueue, Store, Stream
from broker.memory_routing import Routes
from broker.topology import Queue, Topology


class MemoryBroker:
    """Exchanges, queues, streams and the links between which messages go. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._links: dict[MemoryLink, None] = {}
        self._exchanges: set[str] = set()
        self._declared: dict[str, Queue] = {}
        self._stores: dict[str, Store] = {}
        self._routes = Routes()
        self._holding: dict[MemoryLink, None] = {}  # links with something to publish
        self._telling: dict[MemoryLink, None] = {}  # links with events to hand over
        self._tags = itertools.count(1)

    def depth(self, queue: str) -> int:
        """Ready messages in `queue`; 0 if there is no such queue."""
        with self._lock:
            store = self._stores.get(queue)
            return 0 if store is None else len(store)

    def delete_queue(self, queue: str) -> None:
        """Delete `queue` with all messages in it; its consumers are cancelled."""
        with self.turn():
            self._stores.pop(queue, None)
            self._declared.pop(queue, None)
            self._routes.unbind(queue)
            for link in self._links:
                if link.consumers.pop(queue, None):
                    link.tell(Cancelled(queue, f"The queue {queue} was deleted."))

    def purge(self, queue: str) -> None:
        """Lose all ready messages of `queue`."""
        with self.turn():
            if store := self._stores.get(queue):
                store.purge()

    def duplicate(self, queue: str) -> None:
        """Publish the newest ready message of `queue` again, as a link does when a confirm was lost."""
        with self.turn():
            if store := self._stores.get(queue):
                store.append_copy()

    def disconnect(self, link: "MemoryLink", reason: str = "The connection was cut.") -> None:
        """Cut a link: its unacked deliveries go back, it is told `Down` and stays so until `reconnect`."""
        with self.turn():
            if link.connected:
                link.connected = False
                self.release(link)
                link.tell(Down(reason))

    def reconnect(self, link: "MemoryLink") -> None:
        """Let a link back in: it is told `Up`, and its waiting publishes go out."""
        with self.turn():
            if link in self._links and not link.connected:
                link.connected = True
                link.tell(Up())

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Change state under the lock, publish what can go out now, then hand over events without the lock."""
        with self._lock:
            yield
            for link in list(self._holding):
                self._flush(link)
        self._hand_over()

    def join(self, link: "MemoryLink") -> None:
        """Connect a link for the first time. For `MemoryLink`, within a turn, like all below."""
        self._links[link] = None
        self._holding[link] = None
        link.connected = True
        link.tell(Up())

    def hold(self, link: "MemoryLink", message: Outgoing) -> None:
        """Publish a message as soon as it can be."""
        link.held.append(message)
        if link in self._links:
            self._holding[link] = None

    def announce(self, link: "MemoryLink") -> None:
        """Note that a link has events to hand over."""
        if link in self._links:
            self._telling[link] = None

    def leave(self, link: "MemoryLink") -> None:
        """End a link without a word to it."""
        self._links.pop(link, None)
        self._holding.pop(link, None)
        self._telling.pop(link, None)
        self.release(link)

    def release(self, link: "MemoryLink") -> None:
        """End all consumers of a link."""
        for queue in list(link.consumers):
            self.detach(link, queue)

    def attach(self, link: "MemoryLink", consumer: Consumer, offset: Offset | None) -> None:
        """Start a consumer, in place of the link's former one of this queue."""
        self.detach(link, consumer.queue)
        store = self._stores.get(consumer.queue)
        if store is None:
            link.tell(Cancelled(consumer.queue, f"There is no queue {consumer.queue}."))
            return
        link.consumers[consumer.queue] = consumer
        link.tell(Consuming(consumer.queue))
        store.attach(consumer, offset)

    def detach(self, link: "MemoryLink", queue: str) -> None:
        """End the link's consumer of `queue`, if it has one, with the deliveries it has not seen yet."""
        if consumer := link.consumers.pop(queue, None):
            for event in [one for one in link.outbox if isinstance(one, Delivery) and one.queue == queue]:
                link.outbox.remove(event)
            self._stores[queue].detach(consumer)

    def settle(self, link: "MemoryLink", delivery: Delivery) -> None:
        """Forget an acked message; its consumer has credit for another."""
        consumer = link.consumers.get(delivery.queue)
        if consumer and isinstance(delivery.tag, int) and consumer.unacked.pop(delivery.tag, None):
            self._stores[delivery.queue].dispatch()

    def state_of(self, queue: str) -> QueueState | None:
        """What `inspect` reports."""
        store = self._stores.get(queue)
        return None if store is None else QueueState(ready=len(store), consumers=len(store.consumers))

    def declare(self, topology: Topology) -> str | None:
        """Declare what is missing; the error is one sentence, as in `Declared`."""
        self._exchanges |= {exchange.name for exchange in topology.exchanges}
        for queue in topology.queues:
            if queue.name not in self._stores:
                kind = Stream if queue.kind == "stream" else MessageQueue
                self._stores[queue.name] = kind(queue.arguments, self._tags)
                self._declared[queue.name] = queue
            elif self._declared[queue.name].arguments != queue.arguments:
                return f"The queue {queue.name} exists with other arguments; delete it, or declare it as it is."
        for binding in topology.bindings:
            if binding.queue not in self._stores or binding.exchange not in self._exchanges:
                return f"There is no queue {binding.queue} or no exchange {binding.exchange} to bind."
            self._routes.bind(binding)
        return None

    def _flush(self, link: "MemoryLink") -> None:
        """Publish what the link holds, in order, but for the lanes whose queue is full."""
        waiting: dict[LaneName, Outgoing] = {}
        left: deque[Outgoing] = deque()
        while link.connected and link.held:
            message = link.held.popleft()
            lane, stores = lane_of(message.exchange, message.routing_key), self._routed(message)
            if lane in waiting or any(store.refusing for store in stores):
                waiting.setdefault(lane, message)
                left.append(message)
                continue
            for store in stores:
                store.append(Message(message.body, link.user))
            settled = Confirmed(message.token) if stores else Returned(message.token, self._unroutable(message))
            link.tell(settled)
        link.held.extendleft(reversed(left))
        first = next(iter(waiting.values()), None)
        link.tell_stuck(None if first is None else f"The queue behind {first.routing_key!r} takes no more messages.")
        if not link.held:
            self._holding.pop(link, None)

    def _routed(self, message: Outgoing) -> list[Store]:
        """The queues that take a message, each once."""
        if message.exchange == "":
            store = self._stores.get(message.routing_key)
            return [] if store is None else [store]
        return [self._stores[name] for name in self._routes.queues(message.exchange, message.routing_key)]

    def _unroutable(self, message: Outgoing) -> str:
        if message.exchange and message.exchange not in self._exchanges:
            return f"There is no exchange {message.exchange}."
        return f"No queue takes messages of exchange {message.exchange!r} with key {message.routing_key!r}."

    def _hand_over(self) -> None:
        """Deliver events one at a time, each link's in order; a link that is inside its `deliver` waits its turn."""
        while (due := self._next_due()) is not None:
            link, event = due
            try:
                link.deliver(event)
            finally:
                with self._lock:
                    link.busy = False

    def _next_due(self) -> "tuple[MemoryLink, LinkEvent] | None":
        with self._lock:
            told, link = [], None
            for one in self._telling:
                if not one.outbox:
                    told.append(one)
                elif not one.busy:
                    link = one
                    break
            for one in told:
                del self._telling[one]
            if link is None:
                return None
            link.busy = True
            return link, link.outbox.popleft()


class MemoryLink:
    """A `Link` over a `MemoryBroker`; `user` is the account stamped on what it publishes.

    A second `consume` of a queue replaces the first. Commands other than `publish` are dropped while not connected.
    """

    def __init__(self, broker: MemoryBroker, deliver: Callable[[LinkEvent], None], *, user: str = "memory") -> None:
        self.deliver = deliver
        self.user = user
        self.connected = False
        self.busy = False
        self.outbox: deque[LinkEvent] = deque()
        self.held: deque[Outgoing] = deque()
        self.consumers: dict[str, Consumer] = {}
        self._stuck: str | None = None
        self._broker = broker
        self._opened = False

    def open(self) -> None:
        """Connect, once."""
        with self._broker.turn():
            if not self._opened:
                self._opened = True
                self._broker.join(self)

    def consume(self, queue: str, *, prefetch: int = 1, offset: Offset | None = None) -> None:
        """See `Link.consume`."""
        with self._broker.turn():
            if self.connected:
                self._broker.attach(self, Consumer(queue, prefetch, self.tell), offset)

    def cancel(self, queue: str) -> None:
        """See `Link.cancel`."""
        with self._broker.turn():
            self._broker.detach(self, queue)

    def publish(self, message: Outgoing) -> None:
        """See `Link.publish`."""
        with self._broker.turn():
            self._broker.hold(self, message)

    def tell(self, event: LinkEvent) -> None:
        """Hand over an event once the turn is over."""
        self.outbox.append(event)
        self._broker.announce(self)

    def tell_stuck(self, reason: str | None) -> None:
        """Say what publishing waits for, when it changes."""
        if reason != self._stuck:
            self._stuck = reason
            self.tell(Stuck(reason))

    def ack(self, delivery: Delivery) -> None:
        """See `Link.ack`."""
        with self._broker.turn():
            self._broker.settle(self, delivery)

    def inspect(self, queues: Iterable[str]) -> None:
        """See `Link.inspect`."""
        with self._broker.turn():
            if self.connected:
                self.tell(Inspected({queue: self._broker.state_of(queue) for queue in queues}))

    def declare(self, topology: Topology) -> None:
        """See `Link.declare`."""
        with self._broker.turn():
            if self.connected:
                self.tell(Declared(self._broker.declare(topology)))

    def close(self) -> None:
        """See `Link.close`."""
        with self._broker.turn():
            self.connected = False
            self._opened = True
            self._broker.leave(self)
            self.outbox.clear()
            self.held.clear()
