"""The simulated road: how long things take, and that a cut loses nothing."""

from collections.abc import Callable

import pytest

from broker.link import Confirmed, Delivery, Down, LinkEvent, Outgoing, Up
from broker.memory import MemoryBroker, MemoryLink
from broker.topology import Queue, Topology
from deploy.simulation.clock import Clock
from deploy.simulation.network import Road, Wire

ROAD = Road(latency_s=1.0, up=10.0, down=20.0)  # bytes a second
Seen = list[tuple[float, LinkEvent]]


class Place:
    """A wire to a broker with the queue `work`, and what has arrived over it."""

    def __init__(self, road: Road = ROAD) -> None:
        self.clock, self.broker, self.seen = Clock(), MemoryBroker(), Seen()
        direct = MemoryLink(self.broker, lambda _: None)
        direct.open()
        direct.declare(Topology(queues=(Queue("work", "quorum"),)))
        self.direct = direct
        self.wire = Wire(self.clock, self.broker, road, self._take, user="S1")
        self.wire.open()

    def _take(self, event: LinkEvent) -> None:
        self.seen.append((self.clock.now, event))

    def of(self, kind: type) -> list[float]:
        return [time for time, event in self.seen if isinstance(event, kind)]

    def publish(self, size: int, token: str) -> None:
        self.wire.publish(Outgoing("", "work", bytes(size), token))

    def at(self, time: float, action: Callable[[], object]) -> None:
        self.clock.at(time, action)


def test_a_publish_takes_its_bytes_and_the_latency_and_its_confirm_the_latency() -> None:
    place = Place()
    place.at(10.0, lambda: place.publish(50, "a"))
    place.at(10.0, lambda: place.publish(20, "b"))
    place.clock.run(100.0)
    assert place.of(Up) == [1.0]
    assert place.of(Confirmed) == [10 + 5 + 1 + 1, 10 + 5 + 2 + 1 + 1]  # one after the other on the line
    assert place.wire.up.carried == 70


def test_a_delivery_takes_its_bytes_and_the_latency() -> None:
    place = Place()
    place.at(10.0, lambda: place.wire.consume("work"))
    place.at(20.0, lambda: place.direct.publish(Outgoing("", "work", bytes(40), "a")))
    place.clock.run(100.0)
    assert place.of(Delivery) == [20 + 2 + 1]
    assert place.wire.down.carried == 40


def test_a_cut_in_mid_publish_loses_nothing_and_what_was_sent_is_sent_again() -> None:
    place = Place()
    place.at(10.0, lambda: place.publish(50, "a"))
    place.at(13.0, place.wire.cut)  # 30 of 50 bytes are out
    place.at(20.0, place.wire.mend)
    place.clock.run(100.0)
    assert place.of(Down) == [13.0]
    assert place.of(Up) == [1.0, 21.0]
    assert place.of(Confirmed) == [21 + 5 + 1 + 1]
    assert place.broker.depth("work") == 1
    assert place.wire.up.carried == 30 + 50


def test_a_confirm_that_is_lost_makes_a_duplicate_never_a_loss() -> None:
    place = Place()
    place.at(10.0, lambda: place.publish(50, "a"))
    place.at(16.5, place.wire.cut)  # the broker has it since 16, the confirm would have come at 17
    place.at(20.0, place.wire.mend)
    place.clock.run(100.0)
    assert place.broker.depth("work") == 2
    assert len(place.of(Confirmed)) == 1


def test_a_cut_in_mid_delivery_puts_it_back_to_its_queue() -> None:
    place = Place()
    place.at(10.0, lambda: place.wire.consume("work"))
    place.at(20.0, lambda: place.direct.publish(Outgoing("", "work", bytes(40), "a")))
    place.at(21.0, place.wire.cut)
    place.clock.run(50.0)
    assert place.of(Delivery) == []
    assert place.broker.depth("work") == 1
    place.at(60.0, place.wire.mend)
    place.at(70.0, lambda: place.wire.consume("work"))
    place.clock.run(100.0)
    assert place.of(Delivery) == [70 + 1 + 2 + 1]
    assert place.wire.down.carried == 20 + 40


def test_what_is_on_its_way_to_an_ended_consumer_does_not_arrive() -> None:
    place = Place()
    place.at(10.0, lambda: place.wire.consume("work"))
    place.at(20.0, lambda: place.direct.publish(Outgoing("", "work", bytes(40), "a")))
    place.at(21.0, lambda: place.wire.cancel("work"))
    place.clock.run(50.0)
    assert place.of(Delivery) == []
    assert place.broker.depth("work") == 1


@pytest.mark.parametrize("fault", ["twice", "late"])
def test_a_message_can_be_doubled_or_overtaken(fault: str) -> None:
    place = Place()

    def publish() -> None:
        place.wire.twice, place.wire.late_s = (1, 0.0) if fault == "twice" else (0, 60.0)
        place.publish(10, "first")
        place.publish(10, "second")

    place.at(10.0, publish)
    place.clock.run(200.0)
    tokens = [event.token for _, event in place.seen if isinstance(event, Confirmed)]
    assert tokens == (["first", "second"] if fault == "twice" else ["second", "first"])
    assert place.broker.depth("work") == (3 if fault == "twice" else 2)


def test_what_is_published_while_away_waits_for_the_line() -> None:
    place = Place()
    place.at(10.0, place.wire.cut)
    place.at(11.0, lambda: place.publish(10, "a"))
    place.at(12.0, lambda: place.wire.inspect(["work"]))  # dropped, as over any link that is down
    place.at(20.0, place.wire.mend)
    place.clock.run(100.0)
    assert place.of(Confirmed) == [21 + 1 + 1 + 1]
    assert len(place.seen) == 4  # up, down, up, confirmed
