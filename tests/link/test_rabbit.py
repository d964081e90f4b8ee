"""What only a real broker and a real network do to a link: refusals, cut lines, restarts, alarms."""

import contextlib
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.accounts import Management
from broker.install import find_rabbitmq
from broker.link import (
    Confirmed,
    Consuming,
    Declared,
    Delivery,
    Denied,
    Down,
    Link,
    Outgoing,
    QueueState,
    Returned,
    Up,
)
from broker.node import Node
from broker.rabbit import RabbitLink
from broker.topology import Queue, SiteNames, Topology, federation_topology, site_rights, updates_exchange
from tests.link.proxy import Proxy
from tests.link.recorder import Recorder, await_ready, state_of

WORK = "work"
Open = Callable[[Link, Recorder], Link]
Attach = Callable[[str], tuple[RabbitLink, Recorder]]


@pytest.fixture
def attach(request: pytest.FixtureRequest) -> Iterator[Attach]:
    """Opens a link to a URL and closes it after the test."""
    links: list[RabbitLink] = []

    def open_link(url: str) -> tuple[RabbitLink, Recorder]:
        events = Recorder()
        link = RabbitLink(url, events, name=request.node.name)
        links.append(link)
        link.open()
        return link, events

    yield open_link
    for link in links:
        link.close()


@pytest.fixture
def direct(attach: Attach, broker_url: str) -> tuple[RabbitLink, Recorder]:
    """The administrator's link, without proxy, with the queue `work`."""
    return with_work_queue(*attach(broker_url))


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


def with_work_queue(link: RabbitLink, events: Recorder) -> tuple[RabbitLink, Recorder]:
    events.next(Up)
    declare(link, events, Queue(WORK, "quorum"))
    return link, events


def declare(link: Link, events: Recorder, *queues: Queue) -> None:
    link.declare(Topology(queues=queues))
    assert events.next(Declared).error is None


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
    declare(link, events, Queue(WORK, "quorum"), Queue("answers", "quorum"))
    for number in range(20):
        link.publish(work(number))
    link.consume(WORK)
    assert events.bodies(20) == [str(number).encode() for number in range(20)]
    confirmed = [events.next(Confirmed).token for _ in range(40)]
    assert [token for token in confirmed if isinstance(token, bytes)] == [str(number).encode() for number in range(20)]


def test_a_receiver_that_fails_is_no_lost_line(
    broker_url: str, opened: Open, direct: tuple[RabbitLink, Recorder], caplog: pytest.LogCaptureFixture
) -> None:
    events = Recorder()
    failures = iter([ValueError("of the receiver")])

    def deliver(event: object) -> None:
        if isinstance(event, Delivery) and (failure := next(failures, None)):
            raise failure
        events(event)  # type: ignore[arg-type]

    link = RabbitLink(broker_url, deliver, name="failing")
    opened(link, events)
    direct[0].publish(work(1))
    link.consume(WORK)
    assert "failed unexpectedly; see the log" in events.next(Down).reason
    assert "ValueError: of the receiver" in caplog.text
    events.next(Up)
    link.consume(WORK)
    assert events.next(Delivery).redelivered


def test_a_wrong_password_is_final(attach: Attach, node: Node, vhost: str) -> None:
    _, events = attach(node.amqp_url(password="wrong", vhost=vhost))
    assert events.next(Denied).reason.endswith("refuses the login of 'admin': check its password.")
    assert not events.has(Denied)


def test_an_unknown_virtual_host_is_final(attach: Attach, node: Node) -> None:
    _, events = attach(node.amqp_url(vhost="nowhere"))
    assert "no virtual host 'nowhere'" in events.next(Denied).reason


def test_a_virtual_host_without_access_is_final(attach: Attach, node: Node, management: Management, vhost: str) -> None:
    management.put_user("stranger", "secret")
    _, events = attach(node.amqp_url("stranger", "secret", vhost))
    assert "does not let 'stranger' use the virtual host" in events.next(Denied).reason


@pytest.fixture
def site_url(direct: tuple[RabbitLink, Recorder], node: Node, management: Management, vhost: str) -> str:
    """The address of an account with no more than a site's rights."""
    link, events = direct
    for topology in (federation_topology("fed"), SiteNames("fed", "a").topology(), SiteNames("fed", "b").topology()):
        link.declare(topology)
        assert events.next(Declared).error is None
    management.put_user("site-a", "secret")
    management.set_rights(vhost, "site-a", site_rights("fed", "a"))
    return node.amqp_url("site-a", "secret", vhost)


def test_a_site_can_do_its_own_work(attach: Attach, site_url: str) -> None:
    link, events = attach(site_url)
    events.next(Up)
    names = SiteNames("fed", "a")
    link.consume(names.rounds)
    assert events.next(Consuming) == Consuming(names.rounds)
    link.publish(Outgoing(updates_exchange("fed"), names.update_key, b"", token=1))
    assert events.next(Confirmed).token == 1


def test_reading_another_sites_queue_is_final(attach: Attach, site_url: str) -> None:
    link, events = attach(site_url)
    events.next(Up)
    link.consume(SiteNames("fed", "b").rounds)
    assert "'site-a'" in events.next(Denied).reason


def test_publishing_in_another_sites_name_is_final(attach: Attach, site_url: str) -> None:
    link, events = attach(site_url)
    events.next(Up)
    link.publish(Outgoing(updates_exchange("fed"), SiteNames("fed", "b").update_key, b"", token=1))
    assert "'site-a'" in events.next(Denied).reason


def test_declaring_without_permission_is_told(attach: Attach, site_url: str) -> None:
    link, events = attach(site_url)
    events.next(Up)
    link.declare(Topology(queues=(Queue("mine", "quorum"),)))
    error = events.next(Declared).error
    assert error is not None
    assert "refused" in error
    assert state_of(link, events, SiteNames("fed", "a").rounds)


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
    declare(link, events, Queue("kept", "quorum"))
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


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """The port of a TLS server with a certificate for another host, and that certificate."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey ed25519 -nodes -days 2 -subj /CN=other -addext subjectAltName=DNS:other"
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_shake_hands, args=(server, context))
        thread.start()
        yield server.getsockname()[1], certificate
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def _shake_hands(server: socket.socket, context: ssl.SSLContext) -> None:
    with contextlib.suppress(OSError):
        while True:
            line, _ = server.accept()
            with line, contextlib.suppress(OSError):
                context.wrap_socket(line, server_side=True).close()


@pytest.mark.parametrize(("trusted", "reason"), [(False, "self-signed"), (True, "not valid for '127.0.0.1'")])
def test_a_certificate_that_is_not_the_brokers_is_final(
    impostor: tuple[int, Path], opened_tls: Callable[[str, Path | None], Recorder], trusted: bool, reason: str
) -> None:
    port, certificate = impostor
    events = opened_tls(f"amqps://a:b@127.0.0.1:{port}/v", certificate if trusted else None)
    denied = events.next(Denied).reason
    assert reason in denied
    assert denied.endswith("check the host name and the CA file.")


def test_tls_to_a_port_without_tls_is_final(node: Node, opened_tls: Callable[[str, Path | None], Recorder]) -> None:
    events = opened_tls(node.amqp_url().replace("amqp://", "amqps://"), None)
    assert (
        events.next(Denied).reason
        == f"127.0.0.1:{node.amqp_port} does not speak TLS: use the broker's TLS port, usually 5671."
    )


@pytest.fixture
def opened_tls() -> Iterator[Callable[[str, Path | None], Recorder]]:
    links: list[RabbitLink] = []

    def open_link(url: str, ca_file: Path | None) -> Recorder:
        events = Recorder()
        links.append(RabbitLink(url, events, name="tls", ca_file=ca_file))
        links[-1].open()
        return events

    yield open_link
    for link in links:
        link.close()
