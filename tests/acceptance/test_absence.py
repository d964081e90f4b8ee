"""Promises 2 and 3: the run survives everybody's absence and mistakes, and late work counts by its exact age."""

import json
import re
from pathlib import Path

from broker.identity import PrivateKey
from broker.messages import AGGREGATOR, EVERYONE, Announcement, Peer
from broker.settings import write_secret
from deploy.local import SitePlan
from tests.acceptance.administrator import Administrator
from tests.acceptance.books import settled
from tests.acceptance.commands import fedqueue
from tests.acceptance.federation import Federation
from tests.link.proxy import Proxy

MISSED = 50


def test_staleness_is_exact_and_one_announcement_waits_after_fifty_missed_versions(
    federation: Federation, administrator: Administrator
) -> None:
    federation.prepare(SitePlan("a", {"site": 1}), SitePlan("b", {"site": 2}, 0.3), versions=0)
    assert federation.node is not None
    with Proxy(federation.node.amqp_port) as proxy:
        url_file = federation.site("b").url_file
        write_secret(
            url_file, url_file.read_text().strip().replace(f":{federation.node.amqp_port}/", f":{proxy.port}/")
        )
        federation.start()
        federation.trains("b")
        proxy.stall()  # b's network dies while it trains: the update stays in its outbox
        federation.eventually("b has an update", lambda: federation.site_status("b").waiting == 1)
        federation.kill("b")
        proxy.cut()
        base = federation.outbox("b", "SELECT base_version FROM updates")[0][0]
        federation.reaches(base + MISSED, timeout_s=60)
        federation.kill("a")  # the versions stand still
        federation.eventually("the buffer is empty", lambda: not federation.status().buffered)
        newest = federation.status().version
        rounds = federation.names("b").rounds
        federation.eventually("b has the newest", lambda: _announced(federation, administrator, rounds) == newest)
        assert administrator.ready(rounds) == 1

        _finish_at(federation, newest + 2)
        proxy.resume()
        federation.start_site("b")
        federation.reaches(newest + 2)
        federation.start_site("a")
        settled(federation)
    staleness = federation.journal("SELECT base_version, staleness FROM updates WHERE site = 'b' ORDER BY ordinal")
    assert tuple(staleness[0]) == (base, newest - base)
    assert all(row["base_version"] >= newest for row in staleness[1:])  # none of the missed versions was trained from
    assert len(staleness) >= 2


def test_one_sites_mistake_and_anothers_slowness_are_their_own_and_visible(federation: Federation) -> None:
    mistaken = SitePlan("mistaken", {}, task="tests.acceptance.tasks:mistaken")
    slow = SitePlan("slow", {"site": 2}, step_delay_s=0.4)
    federation.prepare(SitePlan("well", {"site": 1}, step_delay_s=0.02), mistaken, slow, versions=20, max_wait_s=0.2)
    federation.start()
    federation.reaches(20)
    assert federation.site_status("slow").state in {"training", "fetching", "idle"}
    shown = json.loads(fedqueue("site", "status", federation.site("mistaken").path, "--json").stdout)
    assert shown["state"] == "waiting"
    assert re.fullmatch(
        r"The task raised ZeroDivisionError: no rows of this ward \(\S+/tasks\.py, line 17\)\.", shown["detail"]
    )
    settled(federation)
    accepted = {site.site: site.accepted for site in federation.status().sites}
    assert accepted["mistaken"] == 0
    assert min(accepted["well"], accepted["slow"]) >= 1
    late = federation.journal("SELECT max(staleness) FROM updates WHERE site = 'slow'")[0][0]
    assert late >= 1  # its work counts, by its age


def _announced(federation: Federation, administrator: Administrator, queue: str) -> int:
    """The version that waits in a rounds queue."""
    key = PrivateKey.load(federation.aggregator.key_file).public
    peer = Peer(federation.name, AGGREGATOR, key)
    message, _ = peer.open(administrator.peek(queue), recipients=frozenset({"b", EVERYONE}))
    assert isinstance(message, Announcement)
    return message.version


def _finish_at(federation: Federation, version: int) -> None:
    """The coordinator sets the end of the run and starts the aggregator again."""
    file: Path = federation.aggregator.settings_file
    file.write_text(file.read_text().replace("versions = 0", f"versions = {version}"))
    federation.kill("aggregator")
    federation.start_aggregator()
