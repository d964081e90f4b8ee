"""What a site's account may do is found out on a real node, and no message moves for it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pika
import pytest

from broker.accounts import Management
from broker.checks import log_in
from broker.errors import LinkError, LinkRefused
from broker.node import Node
from broker.probes import SiteProbe
from broker.processes import Ports
from broker.rabbit_address import Address
from broker.removal import delete_queues
from broker.serving import declare_topology
from broker.topology import Rights, SiteNames, federation_topology, rounds_exchange, site_rights, updates_exchange

FEDERATION = "lungs"
NORTH, SOUTH = SiteNames(FEDERATION, "north"), SiteNames(FEDERATION, "south")
RIGHTS = site_rights(FEDERATION, "north")
(OWN_TOPIC,) = RIGHTS.topics
EXCHANGE = updates_exchange(FEDERATION)


@dataclass
class Hospital:
    """The account of the site north in a virtual host of its own."""

    admin_url: str
    url: str
    account: str
    vhost: str
    management: Management

    def may(self, rights: Rights) -> None:
        self.management.set_rights(self.vhost, self.account, rights)

    def probe(self) -> SiteProbe:
        return SiteProbe(Address.parse(self.url), NORTH)

    def failed(self) -> dict[str, str]:
        """Names and sentences of the checks that fail."""
        probe = self.probe()
        try:
            return {check.name: check.detail for check in probe.rights() if not check.passed}
        finally:
            probe.close()

    def admin(self) -> pika.BlockingConnection:
        return pika.BlockingConnection(pika.URLParameters(self.admin_url))

    def ready(self) -> dict[str, int]:
        """Messages in every queue of both sites."""
        queues = [queue.name for names in (NORTH, SOUTH) for queue in names.topology().queues]
        with self.admin() as connection:
            channel = connection.channel()
            return {queue: channel.queue_declare(queue, passive=True).method.message_count for queue in queues}

    def announce(self, body: bytes) -> None:
        with self.admin() as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_publish(rounds_exchange(FEDERATION), "round.all", body, mandatory=True)


@pytest.fixture
def hospital(node: Node, management: Management, vhost: str, broker_url: str) -> Iterator[Hospital]:
    account = f"{vhost}-north"
    management.put_user(account, "secret")
    own = [NORTH.topology(), SOUTH.topology()]
    declare_topology(broker_url, federation_topology(FEDERATION, max_models_bytes=1 << 20).with_all(own))
    made = Hospital(broker_url, node.amqp_url(account, "secret", vhost), account, vhost, management)
    made.may(RIGHTS)
    yield made
    management.delete_user(account)


def test_the_right_rights_pass_and_no_message_moves(hospital: Hospital) -> None:
    hospital.announce(b"version 7")
    before = hospital.ready()
    probe = hospital.probe()
    checks = list(probe.rights())
    assert [(check.name, check.passed) for check in checks] == [
        ("read rounds", True), ("read receipts", True), ("read models", True), ("publish", True), ("others", True),
    ]  # fmt: skip
    assert probe.newest_announcement() == b"version 7"
    probe.close()
    assert hospital.ready() == before == {
        NORTH.rounds: 1, NORTH.updates: 0, NORTH.receipts: 0, SOUTH.rounds: 1, SOUTH.updates: 0, SOUTH.receipts: 0,
    }  # fmt: skip


def test_where_nothing_is_announced_nothing_is_found(hospital: Hospital) -> None:
    probe = hospital.probe()
    assert probe.newest_announcement() is None
    probe.close()


@pytest.mark.parametrize(
    ("rights", "name", "said"),
    [
        (
            replace(RIGHTS, read=r"^fq\.lungs\.(north\.receipts|models)$"),
            "read rounds",
            "may not read fq.lungs.north.r",
        ),
        (replace(RIGHTS, read=r"^fq\.lungs\.(north\.rounds|models)$"), "read receipts", "may not read"),
        (replace(RIGHTS, read=r"^fq\.lungs\.north\.(rounds|receipts)$"), "read models", "may not read fq.lungs.models"),
        (replace(RIGHTS, write="^$"), "publish", "may not publish update.north"),
        (replace(RIGHTS, topics=((EXCHANGE, r"^update\.north$", "^$"),)), "publish", "may not publish hello.north"),
        (
            replace(RIGHTS, topics=((EXCHANGE, r"^(update|hello)\.north", "^$"),)),
            "others",
            "in the name of other sites",
        ),
        (replace(RIGHTS, topics=((EXCHANGE, ".*", "^$"),)), "others", "in the name of other sites"),
        (replace(RIGHTS, read=r"^fq\.lungs\..*$"), "others", "may read other sites' queues"),
    ],
)
def test_a_right_that_is_missing_or_too_much_is_named(hospital: Hospital, rights: Rights, name: str, said: str) -> None:
    hospital.may(rights)
    failed = hospital.failed()
    assert list(failed) == [name]
    assert said in failed[name]
    assert failed[name].endswith("ask for the rights that 'fedqueue broker rights lungs north' prints")
    assert sum(hospital.ready().values()) == 0


def test_without_any_topic_right_the_broker_allows_every_key(hospital: Hospital) -> None:
    """RabbitMQ's default where no topic permission is set: the mistake that this check is for."""
    hospital.management._call("DELETE", f"topic-permissions/{hospital.vhost}/{hospital.account}")
    assert list(hospital.failed()) == ["others"]


def test_a_queue_that_is_gone_is_named(hospital: Hospital) -> None:
    with hospital.admin() as connection:
        connection.channel().queue_delete(NORTH.rounds)
    assert list(hospital.failed().items()) == [
        ("read rounds", "there is no queue fq.lungs.north.rounds: ask the coordinator to add this site again")
    ]


def test_each_obstacle_on_the_way_to_the_broker_has_its_own_sentence(hospital: Hospital, node: Node) -> None:
    free = Ports.free().amqp
    account = f"{hospital.account}:secret"
    cases = {
        f"amqp://{account}@{'x' * 64}.example/": (LinkError, r"^The name 'x+\.example' cannot be looked up"),
        f"amqp://{account}@127.0.0.1:{free}/": (LinkError, rf"^Nothing answers at 127\.0\.0\.1:{free} \(connection re"),
        f"amqps://{account}@127.0.0.1:{node.amqp_port}/": (LinkRefused, "does not speak TLS"),
        node.amqp_url(hospital.account, "wrong", hospital.vhost): (LinkRefused, "refuses the login"),
        node.amqp_url(hospital.account, "secret", "nowhere"): (LinkRefused, "has no virtual host 'nowhere'"),
        node.amqp_url(hospital.account, "secret", "/"): (LinkRefused, "does not let .* use the virtual host '/'"),
    }
    for url, (kind, said) in cases.items():
        with pytest.raises(kind, match=said):
            log_in(Address.parse(url), "test")


def test_a_sites_queues_are_deleted_once_nobody_reads_its_updates(hospital: Hospital) -> None:
    address = Address.parse(hospital.admin_url)
    with hospital.admin() as aggregator:
        aggregator.channel().basic_consume(NORTH.updates, lambda *_: None)
        with pytest.raises(LinkError, match=r"still reads fq\.lungs\.north\.updates"):
            delete_queues(address, NORTH, patience_s=0.0)
    delete_queues(address, NORTH)
    delete_queues(address, NORTH)  # again, as after a kill
    names = {queue["name"] for queue in hospital.management.queues(hospital.vhost)}
    assert names == {SOUTH.rounds, SOUTH.updates, SOUTH.receipts, "fq.lungs.models", "fq.lungs.refused"}
