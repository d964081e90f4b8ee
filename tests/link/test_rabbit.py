"""What only a real broker and a real network do to a link: cut lines, restarts, alarms, silence."""

import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from broker.events import speaking_for, spoken_for
from broker.install import find_rabbitmq
from broker.link import (
    Confirmed,
    Delivery,
    Down,
    Link,
    Outgoing,
    QueueState,
    Returned,
    Up,
)
from broker.node import Node
from broker.rabbit import RabbitLink
from broker.topology import Queue, Topology
from tests.link.conftest import WORK, Attach, with_work_queue
from tests.link.proxy import Proxy
from tests.link.recorder import Recorder, await_ready, state_of
from tests.link.steps import declare, declare_queue

Open = Callable[[Link, Recorder], Link]


@pytest.fixture
def proxy(node: Node) -> Iterator[Proxy]:
    with Proxy(node.amqp_port) as proxy:
        yield proxy


@pytest.fixture
def proxied(attach: Attach, proxy: Proxy, node: Node, broker_url: str, direct: object) -> tuple[RabbitLink, Recorder]:
    """A link whose connections the proxy can harm."""
    link, events = attach(broker_url.replace(f":{node.amqp_port}/", f":{proxy.port}/"))
    events.next(Up)
    return link, events


@pytest.fixture(scope="module")
def mortal(rabbitmq: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node of this module's own, to be harmed."""
    node = Node.create(tmp_path_factory.mktemp("mortal"))
    try:
        node.start()
        yield node
    finally:
        node.kill()


def work(number: int, body: bytes = b"") -> Outgoing:
    return Outgoing("", WORK, body or str(number).encode(), token=number)


def test_publishes_in_flight_when_the_line_is_cut_arrive_in_order(
    proxy: Proxy, proxied: tuple[RabbitLink, Recorder], direct: tuple[RabbitLink, Recorder]
) -> None:
    link, events = proxied
    for number in range(100):
        link.publish(work(number))
        if number in (30, 60):
            proxy.cut()
    assert [events.next(Confirmed).token for _ in range(100)] == list(range(100))
    receiver, received = direct
    receiver.consume(WORK, prefetch=200)
    numbers: list[int] = []
    while not numbers or numbers[-1] != 99:
        numbers.append(int(received.next(Delivery).body))
    assert list(dict.fromkeys(numbers)) == list(range(100))


def test_half_a_message_is_published_again_and_arrives_once(
    proxy: Proxy, proxied: tuple[RabbitLink, Recorder], direct: tuple[RabbitLink, Recorder]
) -> None:
    link, events = proxied
    body = os.urandom(1 << 20)
    proxy.cut_after(len(body) // 2)
    link.publish(work(1, body))
    assert events.next(Confirmed).token == 1
    receiver, received = direct
    await_ready(receiver, received, WORK, 1)
    receiver.consume(WORK)
    assert received.next(Delivery).body == body


def test_a_lost_confirm_means_a_second_publish(
    proxy: Proxy, proxied: tuple[RabbitLink, Recorder], direct: tuple[RabbitLink, Recorder]
) -> None:
    link, events = proxied
    link.publish(work(1))
    assert events.next(Confirmed).token == 1
    proxy.stall_answers()
    link.publish(work(2))
    await_ready(*direct, WORK, 2)
    assert not events.has(Confirmed)
    proxy.cut()
    proxy.resume()
    assert events.next(Confirmed).token == 2
    await_ready(*direct, WORK, 3)


def test_a_cut_line_is_told_and_unacked_messages_come_again(
    proxy: Proxy, proxied: tuple[RabbitLink, Recorder], direct: tuple[RabbitLink, Recorder]
) -> None:
    link, events = proxied
    direct[0].publish(work(1))
    link.consume(WORK)
    before = events.next(Delivery)
    proxy.cut()
    assert events.next(Down).reason.startswith(f"The broker at 127.0.0.1:{proxy.port} ")
    events.next(Up)
    link.ack(before)
    link.consume(WORK)
    again = events.next(Delivery)
    assert (again.body, again.redelivered) == (b"1", True)
    assert state_of(link, events, WORK)


@pytest.mark.parametrize("name", ["consume", "ask"])
def test_one_cut_connection_takes_the_other_with_it(
    name: str, proxy: Proxy, proxied: tuple[RabbitLink, Recorder], direct: tuple[RabbitLink, Recorder]
) -> None:
    link, events = proxied
    direct[0].publish(work(1))
    link.consume(WORK)
    assert events.next(Delivery).body == b"1"
    proxy.cut_one(name)
    assert events.next(Down).reason.startswith(f"The broker at 127.0.0.1:{proxy.port} ")
    await_ready(*direct, WORK, 1)
    events.next(Up)
    assert state_of(link, events, WORK) == QueueState(ready=1, consumers=0)
    link.consume(WORK)
    again = events.next(Delivery)
    assert (again.body, again.redelivered) == (b"1", True)
    assert not events.has(Up)
    assert not events.has(Down)


def test_a_cut_publishing_connection_is_nobody_elses_trouble(
    proxy: Proxy, proxied: tuple[RabbitLink, Recorder]
) -> None:
    link, events = proxied
    link.consume(WORK)
    proxy.cut_one("publish")
    link.publish(work(1))
    assert events.next(Confirmed).token == 1
    assert events.next(Delivery).body == b"1"
    assert not events.has(Down)


def test_closing_returns_while_the_broker_is_silent(proxy: Proxy, proxied: tuple[RabbitLink, Recorder]) -> None:
    link, events = proxied
    proxy.stall()
    link.publish(work(1))
    link.close()
    link.publish(work(2))
    assert not events.has(Confirmed)


def test_closing_returns_while_the_broker_is_away(attach: Attach, node: Node, proxy: Proxy) -> None:
    with Proxy(node.amqp_port) as gone:
        url = node.amqp_url().replace(f":{node.amqp_port}/", f":{gone.port}/")
    link, events = attach(url)
    assert events.next(Down).reason == f"The broker at 127.0.0.1:{gone.port} does not answer (connection refused)."
    link.close()


def test_a_slow_receiver_holds_the_link_back_but_not_its_acks(broker_url: str, opened: Open) -> None:
    """`deliver` may call the link: what it causes comes later, in order."""
    events = Recorder()

    def deliver(event: object) -> None:
        if isinstance(event, Delivery):
            link.ack(event)
            link.publish(Outgoing("", "answers", event.body, token=event.body))
        events(event)  # type: ignore[arg-type]

    link = RabbitLink(broker_url, deliver, name="answering")
    opened(link, events)
    declare(link, events, Topology(queues=(Queue(WORK, "quorum"), Queue("answers", "quorum"))))
    for number in range(20):
        link.publish(work(number))
    link.consume(WORK)
    assert events.bodies(20) == [str(number).encode() for number in range(20)]
    confirmed = [events.next(Confirmed).token for _ in range(40)]
    assert [token for token in confirmed if isinstance(token, bytes)] == [str(number).encode() for number in range(20)]


def test_a_receiver_that_fails_is_no_lost_line(
    broker_url: str, opened: Open, direct: tuple[RabbitLink, Recorder], caplog: pytest.LogCaptureFixture
) -> None:
    events, speakers = Recorder(), set[str | None]()
    failures = iter([ValueError("of the receiver")])

    def deliver(event: object) -> None:
        speakers.add(spoken_for())
        if isinstance(event, Delivery) and (failure := next(failures, None)):
            raise failure
        events(event)  # type: ignore[arg-type]

    with speaking_for("NY"):
        link = RabbitLink(broker_url, deliver, name="failing")
    opened(link, events)
    direct[0].publish(work(1))
    link.consume(WORK)
    assert "failed unexpectedly; see the log" in events.next(Down).reason
    assert "ValueError: of the receiver" in caplog.text
    events.next(Up)
    link.consume(WORK)
    assert events.next(Delivery).redelivered
    assert state_of(link, events, WORK)  # answered on the line for questions
    assert speakers == {"NY"}


def test_a_message_above_the_brokers_size_limit_is_returned(direct: tuple[RabbitLink, Recorder]) -> None:
    link, events = direct
    link.publish(work(1, bytes((128 << 20) + 1)))
    link.publish(work(2))
    assert "larger" in events.next(Returned, timeout_s=120).reason
    assert events.next(Confirmed).token == 2


def test_an_alarm_delays_publishes_and_not_deliveries(attach: Attach, mortal: Node) -> None:
    link, events = with_work_queue(*attach(mortal.amqp_url()))
    link.publish(work(1))
    assert events.next(Confirmed).token == 1
    set_memory_limit(mortal, "0.00001")
    link.publish(work(2))
    link.consume(WORK)
    link.ack(events.next(Delivery))
    assert state_of(link, events, WORK)
    assert not events.has(Confirmed)
    set_memory_limit(mortal, "0.4")
    assert events.next(Confirmed, timeout_s=60).token == 2
    assert events.next(Delivery).body == b"2"


def test_a_restarted_broker_has_lost_nothing(attach: Attach, mortal: Node) -> None:
    link, events = attach(mortal.amqp_url())
    events.next(Up)
    declare_queue(link, events, Queue("kept", "quorum"))
    link.publish(Outgoing("", "kept", b"1", token=1))
    assert events.next(Confirmed).token == 1
    link.consume("kept")
    assert events.next(Delivery).body == b"1"
    mortal.stop()
    assert events.next(Down).reason
    link.publish(Outgoing("", "kept", b"2", token=2))
    mortal.start()
    events.next(Up, timeout_s=90)
    assert events.next(Confirmed, timeout_s=90).token == 2
    link.consume("kept", prefetch=2)
    again, new = events.next(Delivery), events.next(Delivery)
    assert [(again.body, again.redelivered), (new.body, new.redelivered)] == [(b"1", True), (b"2", False)]


def test_the_log_of_large_messages_is_begun_anew_every_64_mib(direct: tuple[RabbitLink, Recorder], node: Node) -> None:
    """What is in it is in the broker's memory as well."""
    link, events = direct
    for number in range(20):
        link.publish(work(number, bytes(4 << 20)))
    for _ in range(20):
        events.next(Confirmed)
    logs = list(node.folder.rglob("*.wal"))
    assert logs
    assert max(log.stat().st_size for log in logs) < (64 + 8) << 20


def set_memory_limit(node: Node, share: str) -> None:
    """Raise or end the memory alarm of a node."""
    rabbitmq = find_rabbitmq()
    assert rabbitmq is not None
    control = str(rabbitmq.server.with_name("rabbitmqctl"))
    command = [control, "-n", "fedqueue@localhost", "set_vm_memory_high_watermark", share]
    # One scheduler that does not spin: on a busy machine this takes seconds instead of half a minute.
    environment = node._environment(rabbitmq) | {
        "RABBITMQ_CTL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"
    }
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)
