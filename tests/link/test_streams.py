"""What `broker.link` promises of streams, held against the in-memory link and the one over RabbitMQ alike."""

from collections.abc import Callable

from broker.link import (
    Cancelled,
    Delivery,
)
from broker.topology import (
    federation_topology,
    models_stream,
)
from tests.link.conftest import Connected, World
from tests.link.recorder import state_of
from tests.link.steps import consume, declare, send

Connect = Callable[..., Connected]
WORK = "work"
STREAM = models_stream("fed")


def test_a_stream_is_read_by_all_from_where_each_begins(link_factory: Connect) -> None:
    writer, written = link_factory("writer")
    declare(writer, written, federation_topology("fed"))
    send(writer, written, STREAM, b"1", b"2", b"3")
    first, from_first = link_factory("first")
    late, from_next = link_factory("late")
    consume(first, from_first, STREAM, prefetch=9, offset="first")
    history = [from_first.next(Delivery) for _ in range(3)]
    assert [one.body for one in history] == [b"1", b"2", b"3"]
    consume(late, from_next, STREAM, prefetch=9, offset="next")
    send(writer, written, STREAM, b"4")
    assert (from_first.bodies(1), from_next.bodies(1)) == ([b"4"], [b"4"])
    other, from_offset = link_factory("other")
    assert history[1].offset is not None
    consume(other, from_offset, STREAM, prefetch=9, offset=history[1].offset)
    assert from_offset.bodies(3) == [b"2", b"3", b"4"]


def test_acks_are_the_credit_of_a_stream_and_take_nothing_out(connected: Connected) -> None:
    link, events = connected
    declare(link, events, federation_topology("fed"))
    send(link, events, STREAM, b"1", b"2", b"3")
    consume(link, events, STREAM, prefetch=2, offset="first")
    one, two = events.next(Delivery), events.next(Delivery)
    state_of(link, events, STREAM)
    assert not events.has(Delivery)
    link.ack(one)
    link.ack(two)
    assert events.next(Delivery).body == b"3"
    consume(link, events, STREAM, prefetch=9, offset="first")
    assert events.bodies(3) == [b"1", b"2", b"3"]


def test_a_publisher_reads_back_the_offset_of_its_own_message(link_factory: Connect, connected: Connected) -> None:
    link, events = connected
    declare(link, events, federation_topology("fed"))
    send(link, events, STREAM, b"before")
    consume(link, events, STREAM, prefetch=9, offset="next")
    send(link, events, STREAM, b"part 0", b"part 1")
    mine = events.next(Delivery)
    assert mine.body == b"part 0"
    site, received = link_factory("site")
    consume(site, received, STREAM, prefetch=9, offset=mine.offset)
    assert received.bodies(2) == [b"part 0", b"part 1"]


def test_a_stream_consumer_cancelled_in_full_flow_harms_nobody(connected: Connected) -> None:
    link, events = connected
    declare(link, events, federation_topology("fed"))
    send(link, events, STREAM, *(str(number).encode() for number in range(40)))
    for _ in range(10):
        consume(link, events, STREAM, prefetch=10, offset="first")
        link.ack(events.next(Delivery))
        link.cancel(STREAM)
    send(link, events, WORK, b"still here")
    consume(link, events, WORK)
    assert events.wait_for(lambda one: isinstance(one, Delivery) and one.queue == WORK)


def test_a_deleted_stream_cancels_its_consumer(world: World, connected: Connected) -> None:
    link, events = connected
    declare(link, events, federation_topology("fed"))
    consume(link, events, STREAM, prefetch=9, offset="first")
    world.delete_queue(STREAM)
    assert events.next(Cancelled).queue == STREAM
