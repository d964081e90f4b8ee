"""Steps that every contract test takes, each awaited until the link has answered."""

from broker.link import (
    Confirmed,
    Consuming,
    Declared,
    Link,
    Offset,
    Outgoing,
)
from broker.topology import (
    Queue,
    Topology,
)
from tests.link.recorder import Recorder


def declare(link: Link, events: Recorder, topology: Topology) -> None:
    link.declare(topology)
    assert events.next(Declared).error is None


def declare_queue(link: Link, events: Recorder, queue: Queue) -> None:
    declare(link, events, Topology(queues=(queue,)))


def send(link: Link, events: Recorder, key: str, *bodies: bytes, exchange: str = "") -> None:
    """Publish and wait for the confirms."""
    for body in bodies:
        link.publish(Outgoing(exchange, key, body, token=body))
    for body in bodies:
        assert events.next(Confirmed) == Confirmed(body)


def consume(link: Link, events: Recorder, queue: str, *, prefetch: int = 1, offset: Offset | None = None) -> None:
    link.consume(queue, prefetch=prefetch, offset=offset)
    assert events.next(Consuming) == Consuming(queue)
