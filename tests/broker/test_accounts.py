"""Accounts and rights on a real node: what the management API says, and what the broker then refuses."""

from collections.abc import Iterator

import pika
import pika.exceptions
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from broker import topology
from broker.accounts import Management
from broker.errors import LinkError, LinkRefused
from broker.node import Node
from broker.processes import Ports, wait_until

FEDERATION = "lungs"


@pytest.fixture
def admin(broker_url: str) -> Iterator[BlockingChannel]:
    """The administrator's channel, with the federation and the sites north and south declared."""
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        channel = connection.channel()
        declare(channel, topology.federation_topology(FEDERATION))
        for site in ("north", "south"):
            declare(channel, topology.SiteNames(FEDERATION, site).topology())
        yield channel


@pytest.fixture
def north(node: Node, management: Management, vhost: str, admin: BlockingChannel) -> Iterator[BlockingChannel]:
    """A channel of the account of the site north, with confirms."""
    account = f"{vhost}-north"
    management.put_user(account, "secret")
    management.set_rights(vhost, account, topology.site_rights(FEDERATION, "north"))
    with pika.BlockingConnection(pika.URLParameters(node.amqp_url(account, "secret", vhost))) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel
    management.delete_user(account)


def declare(channel: BlockingChannel, wanted: topology.Topology) -> None:
    for exchange in wanted.exchanges:
        channel.exchange_declare(exchange.name, "topic", durable=True)
    for queue in wanted.queues:
        channel.queue_declare(queue.name, durable=True, arguments=queue.arguments)
    for binding in wanted.bindings:
        channel.queue_bind(binding.queue, binding.exchange, binding.key)


def refused(error: pytest.ExceptionInfo[pika.exceptions.ChannelClosedByBroker]) -> bool:
    return error.value.reply_code == 403


def test_a_site_publishes_its_own_updates_and_reads_its_own_rounds(north: BlockingChannel) -> None:
    north.basic_publish(topology.updates_exchange(FEDERATION), "update.north", b"delta", mandatory=True)
    assert north.basic_get("fq.lungs.north.rounds")[0] is None


def test_a_site_cannot_publish_under_another_name(north: BlockingChannel) -> None:
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as error:
        north.basic_publish(topology.updates_exchange(FEDERATION), "update.south", b"delta", mandatory=True)
    assert refused(error)


@pytest.mark.parametrize("queue", ["fq.lungs.south.rounds", "fq.lungs.south.receipts", "fq.lungs.north.updates"])
def test_a_site_cannot_read_what_is_not_for_it(north: BlockingChannel, queue: str) -> None:
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as error:
        north.basic_get(queue)
    assert refused(error)


def test_a_site_cannot_announce(north: BlockingChannel) -> None:
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as error:
        north.basic_publish(topology.rounds_exchange(FEDERATION), "round.all", b"version 99", mandatory=True)
    assert refused(error)


def test_queue_totals_follow_a_publish(management: Management, vhost: str, admin: BlockingChannel) -> None:
    admin.confirm_delivery()
    admin.basic_publish(topology.updates_exchange(FEDERATION), "update.south", b"delta", mandatory=True)

    def with_messages() -> list[str]:
        return [queue["name"] for queue in management.queues(vhost) if queue.get("messages_ready")]

    assert wait_until(lambda: with_messages() == ["fq.lungs.south.updates"], 20.0)


def test_names_may_hold_any_character(management: Management) -> None:
    management.put_vhost("a/b ?#%")
    try:
        assert management.queues("a/b ?#%") == []
    finally:
        management.delete_vhost("a/b ?#%")
    assert "a/b ?#%" not in management.vhosts()


def test_deleting_what_is_gone_changes_nothing(management: Management) -> None:
    before = management.vhosts()
    management.delete_user("nobody-of-that-name")
    management.delete_vhost("nothing-of-that-name")
    assert management.vhosts() == before


def test_a_healthy_node_has_no_alarms(management: Management) -> None:
    assert management.alarms() == []


def test_a_wrong_password_is_refused_in_one_sentence(node: Node) -> None:
    with pytest.raises(LinkRefused, match=r"^The broker at http://\S+ refuses user 'admin': check [^.]*\.$"):
        Management(node.management_url, "admin", "wrong").overview()


def test_the_reason_the_broker_gave_is_named(management: Management) -> None:
    with pytest.raises(LinkError, match=r"PUT permissions/nowhere/admin: .*vhost"):
        management.set_rights("nowhere", "admin", topology.site_rights(FEDERATION, "north"))


def test_a_broker_that_is_away_is_a_link_error() -> None:
    away = Management(f"http://127.0.0.1:{Ports.free().management}", "admin", "any")
    with pytest.raises(LinkError, match=r"does not answer \(.*refused.*\): start it, or enable its plugin rab"):
        away.overview()


def test_consumers_are_counted(management: Management, vhost: str, admin: BlockingChannel) -> None:
    def ignore(*_: object) -> None:
        """Takes a message and does nothing with it."""

    admin.basic_consume("fq.lungs.south.updates", ignore)

    def consumed() -> list[str]:
        return [queue["name"] for queue in management.queues(vhost) if queue.get("consumers")]

    assert wait_until(lambda: consumed() == ["fq.lungs.south.updates"], 20.0)
