"""Promise 1 against the broker itself: queues deleted or purged, messages repeated, a node killed or wiped."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from aggregator.settings import Folder as AggregatorFolder
from broker.node import Node
from broker.settings import write_secret
from broker.topology import aggregator_rights, site_rights, updates_exchange
from deploy.local import SitePlan
from site_worker.settings import Folder as SiteFolder
from tests.acceptance.administrator import Administrator
from tests.acceptance.books import settled
from tests.acceptance.byhand import HandSite
from tests.acceptance.federation import Federation
from tests.link.proxy import Proxy


def test_nothing_lost_when_an_operator_deletes_or_purges_a_queue_with_updates_in_it(
    federation: Federation, administrator: Administrator
) -> None:
    federation.prepare(SitePlan("a", {"site": 1}, 0.3, 0.3), SitePlan("b", {"site": 2}, 0.3, 0.3), versions=3)
    federation.start()
    for site in "ab":
        federation.trains(site)
    federation.kill("aggregator")
    for site in "ab":
        federation.published(site, 1)
    administrator.delete(federation.names("a").updates)
    administrator.purge(federation.names("b").updates)
    federation.start_aggregator()
    federation.reaches(3)
    settled(federation)
    first = federation.journal("SELECT site FROM updates WHERE sequence = 1 ORDER BY site")
    assert [row["site"] for row in first] == ["a", "b"]


def test_nothing_doubled_when_every_message_is_delivered_ten_times(
    federation: Federation, administrator: Administrator
) -> None:
    federation.prepare(SitePlan("a", {"site": 1}, 0.01), SitePlan("b", {"site": 2}, 0.01), versions=5)
    copy = administrator.copy(updates_exchange(federation.name))
    federation.start()
    federation.reaches(5)
    federation.finished()  # a late update from version 4 counts too, and must be in before we compare
    before = settled(federation)
    status, digest = federation.status(), federation.digest()

    copies = administrator.taken(copy)
    updates = [one for one in copies if one.key.startswith("update.")]
    assert len(updates) >= before.accepted
    for site in "ab":
        hand = HandSite(federation, site)
        with hand.channel() as channel:
            for one in [one for one in copies if one.key.endswith(f".{site}")] * 10:
                channel.basic_publish(updates_exchange(federation.name), one.key, one.body, one.properties)
        hand.send(b"the last of them")
    federation.eventually("the last of them is refused", lambda: federation.status().refused == 2)

    after = federation.status()
    assert (after.version, after.accepted, after.buffered) == (status.version, status.accepted, 0)
    assert federation.digest() == digest
    assert settled(federation) == before


@pytest.fixture
def own_broker(rabbitmq: None, tmp_path: Path) -> Iterator[tuple[Federation, Node, Proxy]]:
    """A federation with a node of its own; its site `a` reaches it through a proxy."""
    made = Federation(tmp_path, name="fed")
    try:
        node = made.start_broker()
        with Proxy(node.amqp_port) as proxy:
            yield made, node, proxy
    finally:
        made.close()


@pytest.mark.broker
def test_nothing_lost_when_the_broker_is_killed_and_then_loses_its_disk(
    own_broker: tuple[Federation, Node, Proxy],
) -> None:
    federation, node, proxy = own_broker
    federation.prepare(SitePlan("a", {}, step_delay_s=0.15, probe_s=0.3), versions=6)
    url_file = federation.site("a").url_file
    direct = url_file.read_text().strip()
    write_secret(url_file, direct.replace(f":{node.amqp_port}/", f":{proxy.port}/"))
    federation.start()
    federation.reaches(1)

    node.kill()
    federation.eventually("the aggregator waits", lambda: federation.status().link.startswith("waiting: "))
    federation.eventually("the site waits", lambda: "waiting: " in federation.site_status("a").detail)
    made = federation.outbox("a", "SELECT count(*) FROM updates")[0][0]
    node.start()
    federation.reaches(federation.status().version + 1, timeout_s=60)
    assert federation.outbox("a", "SELECT count(*) FROM updates")[0][0] > made

    federation.trains("a")
    federation.kill("aggregator")
    sequence = 1 + federation.outbox("a", "SELECT max(sequence) FROM updates")[0][0]
    federation.published("a", sequence)
    proxy.stall()  # so that the site does not meet a broker that has no account for it yet
    _lose_disk(node)
    _restore_accounts(federation, node)
    federation.start_aggregator()
    federation.eventually("the queues are there again", lambda: "connected" in federation.status().link)
    proxy.cut()
    proxy.resume()
    federation.reaches(6, timeout_s=60)
    settled(federation)
    assert federation.journal("SELECT 1 FROM updates WHERE sequence = ?", sequence)


def _lose_disk(node: Node) -> None:
    """Everything the broker knew is gone: queues, messages, accounts."""
    node.kill()
    data = node.folder / "data"
    data.rename(node.folder / "lost")
    node.start()


def _restore_accounts(federation: Federation, node: Node) -> None:
    """What the broker's operator does from the definitions: the same accounts, passwords and rights, no queue."""
    management = Administrator(node).management
    folders: tuple[AggregatorFolder | SiteFolder, ...] = (
        federation.aggregator,
        *(federation.site(site) for site in federation.sites),
    )
    rights = (aggregator_rights(federation.name), *(site_rights(federation.name, site) for site in federation.sites))
    for folder, its_rights in zip(folders, rights, strict=True):
        login = urlsplit(folder.url_file.read_text().strip())
        management.put_user(login.username or "", login.password or "")
        management.set_rights("/", login.username or "", its_rights)
