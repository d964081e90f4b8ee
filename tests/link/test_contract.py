"""What `broker.link` promises, held against the in-memory link and the one over RabbitMQ alike."""

import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from broker.link import (
    Cancelled,
    Confirmed,
    Declared,
    Delivery,
    Inspected,
    Link,
    Outgoing,
    QueueState,
    Returned,
    Stuck,
)
from broker.topology import (
    ROUND_FOR_ALL,
    Queue,
    SiteNames,
    Topology,
    federation_topology,
    models_stream,
    rounds_exchange,
    updates_exchange,
)
from tests.link.conftest import Connected, World
from tests.link.recorder import Gate, Recorder, await_ready, state_of
from tests.link.steps import consume, declare, declare_queue, send

Connect = Callable[..., Connected]
WORK = "work"
MIB = 1 << 20
NEWEST = Queue("newest", "quorum", (("x-max-length", 1), ("x-overflow", "drop-head")))
NAMES = SiteNames("fed", "site-a")
OTHER = SiteNames("fed", "site-b")
STREAM = models_stream("fed")


@contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """Do `work` on another thread meanwhile."""
    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


def test_a_message_is_confirmed_delivered_and_gone_once_acked(connected: Connected) -> None:
    link, events = connected
    send(link, events, WORK, b"hello")
    consume(link, events, WORK)
    delivery = events.next(Delivery)
    assert (delivery.queue, delivery.body, delivery.redelivered, delivery.offset) == (WORK, b"hello", False, None)
    link.ack(delivery)
    link.cancel(WORK)
    assert state_of(link, events, WORK) == QueueState(ready=0, consumers=0)


def test_messages_come_in_the_order_of_publishing(connected: Connected) -> None:
    link, events = connected
    bodies = [str(number).encode() for number in range(50)]
    send(link, events, WORK, *bodies)
    consume(link, events, WORK, prefetch=50)
    assert events.bodies(50) == bodies


def test_a_consumer_holds_no_more_than_its_prefetch(connected: Connected) -> None:
    link, events = connected
    send(link, events, WORK, b"1", b"2", b"3", b"4")
    consume(link, events, WORK, prefetch=2)
    first, second = events.next(Delivery), events.next(Delivery)
    await_ready(link, events, WORK, 2)
    assert not events.has(Delivery)
    link.ack(first)
    assert events.next(Delivery).body == b"3"
    await_ready(link, events, WORK, 1)
    assert second.body == b"2"


def test_unacked_messages_go_back_on_close_in_order_and_marked(link_factory: Connect, connected: Connected) -> None:
    leaver, left = connected
    send(leaver, left, WORK, b"1", b"2", b"3")
    consume(leaver, left, WORK, prefetch=2)
    assert left.bodies(2) == [b"1", b"2"]
    leaver.close()
    link, events = link_factory("heir")
    consume(link, events, WORK, prefetch=3)
    deliveries = [events.next(Delivery) for _ in range(3)]
    assert [(one.body, one.redelivered) for one in deliveries] == [(b"1", True), (b"2", True), (b"3", False)]


def test_cancel_gives_unacked_messages_back_and_their_acks_are_ignored(connected: Connected) -> None:
    link, events = connected
    send(link, events, WORK, b"1")
    consume(link, events, WORK)
    before = events.next(Delivery)
    link.cancel(WORK)
    link.ack(before)
    await_ready(link, events, WORK, 1)
    consume(link, events, WORK)
    again = events.next(Delivery)
    assert (again.body, again.redelivered) == (b"1", True)
    link.ack(before)
    assert state_of(link, events, WORK) == QueueState(ready=0, consumers=1)
    link.cancel(WORK)
    await_ready(link, events, WORK, 1)


def test_a_close_twice_and_a_cancel_of_the_unknown_do_nothing(connected: Connected) -> None:
    link, events = connected
    link.cancel("never-heard-of")
    assert state_of(link, events, WORK) == QueueState(ready=0, consumers=0)
    link.close()
    link.close()


def test_drop_head_keeps_the_newest_and_does_not_count_what_is_unacked(connected: Connected) -> None:
    link, events = connected
    declare_queue(link, events, NEWEST)
    send(link, events, NEWEST.name, b"1", b"2")
    consume(link, events, NEWEST.name)
    in_work = events.next(Delivery)
    assert in_work.body == b"2"
    send(link, events, NEWEST.name, b"3", b"4")
    await_ready(link, events, NEWEST.name, 1)
    link.ack(in_work)
    assert events.next(Delivery).body == b"4"


def test_a_redelivered_old_message_is_dropped_if_a_newer_one_is_ready(connected: Connected) -> None:
    link, events = connected
    declare_queue(link, events, NEWEST)
    send(link, events, NEWEST.name, b"old")
    consume(link, events, NEWEST.name)
    assert events.next(Delivery).body == b"old"
    send(link, events, NEWEST.name, b"new")
    link.cancel(NEWEST.name)
    consume(link, events, NEWEST.name)
    assert events.next(Delivery).body == b"new"
    assert state_of(link, events, NEWEST.name) == QueueState(ready=0, consumers=1)


def test_a_message_that_no_queue_takes_is_returned_and_the_next_one_goes_on(connected: Connected) -> None:
    link, events = connected
    declare(link, events, federation_topology("fed"))
    link.publish(Outgoing(updates_exchange("fed"), "update.nobody", b"", token=1))
    link.publish(Outgoing("", "no-such-queue", b"", token=2))
    link.publish(Outgoing("no-such-exchange", "key", b"", token=3))
    send(link, events, WORK, b"fine")
    returned = [events.next(Returned) for _ in range(3)]
    assert [one.token for one in returned] == [1, 2, 3]
    assert "fq.fed.updates" in returned[0].reason
    assert "update.nobody" in returned[0].reason
    assert "no-such-exchange" in returned[2].reason


def test_a_full_queue_makes_publishes_wait_in_order(link_factory: Connect) -> None:
    site, sent = link_factory("site-a")
    aggregator, received = link_factory("aggregator")
    declare(aggregator, received, federation_topology("fed"))
    declare(aggregator, received, NAMES.topology(max_updates_bytes=1000))
    for number in range(6):
        site.publish(Outgoing(updates_exchange("fed"), NAMES.update_key, bytes([number]) * 600, token=number))
    assert [sent.next(Confirmed).token for _ in range(2)] == [0, 1]
    await_ready(aggregator, received, NAMES.updates, 2)
    assert not sent.has(Confirmed)
    assert sent.next(Stuck).reason == f"The queue behind {NAMES.update_key!r} takes no more messages."
    consume(aggregator, received, NAMES.updates)
    for number in range(6):
        delivery = received.next(Delivery)
        assert delivery.body[0] == number
        aggregator.ack(delivery)
    assert [sent.next(Confirmed).token for _ in range(4)] == [2, 3, 4, 5]
    assert sent.next(Stuck).reason is None


def test_a_full_queue_holds_up_no_other(connected: Connected) -> None:
    link, events = connected
    full = Queue("full", "quorum", (("x-max-length-bytes", 1000), ("x-overflow", "reject-publish")))
    declare(link, events, Topology(queues=(full,)))
    for number in range(4):
        link.publish(Outgoing("", full.name, bytes(600), token=number))
    assert [events.next(Confirmed).token for _ in range(2)] == [0, 1]
    assert events.next(Stuck).reason == "The queue behind 'full' takes no more messages."
    send(link, events, WORK, b"a", b"b", b"c")
    consume(link, events, full.name, prefetch=4)
    for _ in range(4):
        link.ack(events.next(Delivery))
    assert [events.next(Confirmed).token for _ in range(2)] == [2, 3]
    assert events.next(Stuck).reason is None


def test_several_under_way_have_a_fate_each(connected: Connected) -> None:
    link, events = connected
    link.publish(Outgoing("", WORK, b"", token="well"))
    link.publish(Outgoing("", "nowhere", b"", token="no queue"))
    link.publish(Outgoing("missing", "key", b"", token="no exchange"))
    link.publish(Outgoing("absent", "key", b"", token="no exchange either"))
    link.publish(Outgoing("", WORK, b"", token="well again"))
    returned = {one.token: one.reason for one in (events.next(Returned) for _ in range(3))}
    assert returned == {
        "no queue": "No queue takes messages of exchange '' with key 'nowhere'.",
        "no exchange": "There is no exchange missing.",
        "no exchange either": "There is no exchange absent.",
    }
    assert [events.next(Confirmed).token for _ in range(2)] == ["well", "well again"]
    assert not events.has(Confirmed)


def test_routing_keys_lead_to_one_site_or_to_all(connected: Connected) -> None:
    link, events = connected
    declare(link, events, federation_topology("fed"))
    for names in (NAMES, OTHER):
        declare(link, events, names.topology())
        consume(link, events, names.rounds, prefetch=9)
        consume(link, events, names.receipts, prefetch=9)
    exchange = rounds_exchange("fed")
    send(link, events, ROUND_FOR_ALL, b"for all", exchange=exchange)
    both = {(one.queue, one.body) for one in (events.next(Delivery), events.next(Delivery))}
    assert both == {(NAMES.rounds, b"for all"), (OTHER.rounds, b"for all")}
    for key, queue in ((OTHER.round_key, OTHER.rounds), (NAMES.receipt_key, NAMES.receipts)):
        send(link, events, key, b"for one", exchange=exchange)
        assert events.next(Delivery).queue == queue
    assert not events.has(Delivery)


def test_updates_and_hellos_of_a_site_share_a_queue_in_order(connected: Connected) -> None:
    link, events = connected
    declare(link, events, federation_topology("fed"))
    declare(link, events, NAMES.topology())
    keys = [NAMES.update_key, NAMES.hello_key, NAMES.update_key, NAMES.hello_key]
    for number, key in enumerate(keys):
        link.publish(Outgoing(updates_exchange("fed"), key, f"{number} {key}".encode(), token=number))
    consume(link, events, NAMES.updates, prefetch=9)
    assert events.bodies(4) == [f"{number} {key}".encode() for number, key in enumerate(keys)]


def test_a_missing_queue_cancels_its_consumer_alone(connected: Connected) -> None:
    link, events = connected
    consume(link, events, WORK)
    link.consume("missing")
    cancelled = events.next(Cancelled)
    assert cancelled.queue == "missing"
    assert "missing" in cancelled.reason
    send(link, events, WORK, b"still here")
    assert events.bodies(1) == [b"still here"]


def test_a_deleted_queue_cancels_its_consumer_alone(world: World, connected: Connected) -> None:
    link, events = connected
    declare_queue(link, events, Queue("doomed", "quorum"))
    consume(link, events, WORK)
    consume(link, events, "doomed")
    world.delete_queue("doomed")
    assert events.next(Cancelled).queue == "doomed"
    send(link, events, WORK, b"still here")
    assert events.bodies(1) == [b"still here"]
    declare_queue(link, events, Queue("doomed", "quorum"))
    consume(link, events, "doomed")
    send(link, events, "doomed", b"back again")
    assert events.bodies(1) == [b"back again"]


def test_inspect_tells_ready_messages_consumers_and_what_is_missing(connected: Connected) -> None:
    link, events = connected
    declare_queue(link, events, Queue("watched", "quorum"))
    send(link, events, WORK, b"1", b"2")
    consume(link, events, "watched")
    await_ready(link, events, WORK, 2)
    link.inspect([WORK, "missing", "watched"])
    assert events.next(Inspected).queues == {
        WORK: QueueState(ready=2, consumers=0),
        "missing": None,
        "watched": QueueState(ready=0, consumers=1),
    }


def test_what_is_asked_in_a_flood_makes_a_blocked_receiver_take_in_no_more(
    world: World, opened: Callable[[Link, Recorder], Link], connected: Connected
) -> None:
    """32 MiB wait in 16 queues, and the receiver takes one message at a time."""
    writer, written = connected
    queues = [f"site-{number}" for number in range(16)]
    declare(writer, written, Topology(queues=tuple(Queue(name, "quorum") for name in queues)))
    declare(writer, written, federation_topology("fed"))
    for number, name in enumerate(queues * 2):
        writer.publish(Outgoing("", name, bytes(MIB), token=number))
    assert {written.next(Confirmed).token for _ in range(32)} == set(range(32))

    gate = Gate()
    reader = opened(world.make(gate, "reader"), gate)

    def consume_all() -> None:
        for name in queues:
            reader.consume(name, prefetch=2)

    tracemalloc.start()
    try:
        with beside(consume_all):  # in memory it is the caller who delivers, and so is blocked
            for _ in range(32):
                reader.inspect([*queues, "missing"])
                reader.declare(federation_topology("fed"))
                reader.consume(STREAM, offset="next")
                reader.ack(gate.next_delivery())
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 6 * MIB
    for _ in range(32):
        assert gate.next(Declared).error is None
        assert gate.next(Inspected).queues.keys() == {*queues, "missing"}


def test_declaring_again_changes_nothing_and_a_contradiction_is_told(connected: Connected) -> None:
    link, events = connected
    for _ in range(2):
        declare(link, events, federation_topology("fed"))
        declare(link, events, NAMES.topology())
    send(link, events, WORK, b"kept")
    link.declare(Topology(queues=(Queue(WORK, "quorum", (("x-max-length", 5),)),)))
    error = events.next(Declared).error
    assert error is not None
    assert WORK in error
    consume(link, events, WORK)
    assert events.bodies(1) == [b"kept"]


def test_a_message_carries_the_account_of_its_sender(link_factory: Connect, connected: Connected) -> None:
    link, events = connected
    consume(link, events, WORK, prefetch=9)
    for user in ("site-a", "site-b"):
        sender, sent = link_factory(user)
        send(sender, sent, WORK, b"hello")
        assert events.next(Delivery).user_id == user
