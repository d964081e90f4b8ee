"""What a broker refuses for good, told in one sentence: logins, rights, certificates."""

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.accounts import Management
from broker.link import (
    Confirmed,
    Consuming,
    Declared,
    Denied,
    Outgoing,
    Up,
)
from broker.node import Node
from broker.rabbit import RabbitLink
from broker.topology import Queue, SiteNames, Topology, federation_topology, site_rights, updates_exchange
from tests.link.conftest import Attach
from tests.link.recorder import Recorder, state_of


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
