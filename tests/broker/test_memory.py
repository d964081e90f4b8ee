"""The in-memory link where its own bookkeeping could forget somebody; the contract itself is in tests/link."""

from broker.link import Confirmed, LinkEvent, Outgoing, Stuck
from broker.memory import MemoryBroker, MemoryLink
from broker.topology import Queue, Topology


def world() -> tuple[MemoryBroker, MemoryLink, list[LinkEvent]]:
    broker, seen = MemoryBroker(), list[LinkEvent]()
    direct = MemoryLink(broker, lambda _: None)
    direct.open()
    limits = (("x-max-length", 1), ("x-overflow", "reject-publish"))
    direct.declare(Topology(queues=(Queue("wide", "quorum"), Queue("narrow", "quorum", limits))))
    return broker, MemoryLink(broker, seen.append), seen


def tokens(seen: list[LinkEvent]) -> list[object]:
    return [event.token for event in seen if isinstance(event, Confirmed)]


def test_what_is_published_before_a_link_is_opened_goes_out_then() -> None:
    _, link, seen = world()
    link.publish(Outgoing("", "wide", b"", "a"))
    assert seen == []
    link.open()
    assert tokens(seen) == ["a"]


def test_what_is_published_while_cut_goes_out_after_the_reconnection() -> None:
    broker, link, seen = world()
    link.open()
    broker.disconnect(link)
    link.publish(Outgoing("", "wide", b"", "a"))
    assert tokens(seen) == []
    broker.reconnect(link)
    assert tokens(seen) == ["a"]


def test_what_a_full_queue_held_back_goes_out_when_it_is_emptied() -> None:
    broker, link, seen = world()
    link.open()
    for token in ("a", "b", "c"):
        link.publish(Outgoing("", "narrow", b"", token))
    assert tokens(seen) == ["a", "b"]  # the limit is exceeded once
    assert isinstance(seen[-1], Stuck)
    broker.purge("narrow")
    assert tokens(seen) == ["a", "b", "c"]


def test_a_closed_link_is_told_nothing_more_and_sends_nothing() -> None:
    broker, link, seen = world()
    link.open()
    link.close()
    told = len(seen)
    link.publish(Outgoing("", "wide", b"", "a"))
    broker.purge("wide")
    assert len(seen) == told
    assert broker.depth("wide") == 0
