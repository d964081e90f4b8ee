"""Promise 1 against SIGKILL: of the aggregator anywhere in a run, of a site while it trains, publishes or waits."""

import random
import time

from broker.messages import part_count
from deploy.local import SitePlan
from tests.acceptance.administrator import Administrator
from tests.acceptance.books import settled
from tests.acceptance.commands import fedqueue
from tests.acceptance.federation import Federation

MIB = 1 << 20


def test_nothing_lost_nothing_doubled_when_the_aggregator_is_killed_ten_times(federation: Federation) -> None:
    plans = [SitePlan(name, {"site": number}, 0.01, probe_s=0.5) for number, name in enumerate("abc")]
    federation.prepare(*plans, versions=0)  # nobody can say how far they get before the tenth kill
    federation.start()
    chance = random.Random(7)
    for _ in range(10):
        wanted = federation.accepted() + chance.randrange(0, 4)
        federation.eventually(f"{wanted} updates", lambda wanted=wanted: federation.accepted() >= wanted)  # type: ignore[misc]
        time.sleep(chance.uniform(0.0, 0.3))  # any instant: also of start-up, where no update tells the time
        federation.kill("aggregator")
        federation.start_aggregator()
    wanted = federation.status().version + 4
    assert fedqueue("aggregator", "stop-after", federation.aggregator.path, wanted).returncode == 0
    federation.reaches(wanted)
    federation.finished()
    ledger = settled(federation)
    assert ledger.accepted >= wanted
    assert ledger.refused == 0


def test_nothing_lost_when_a_site_is_killed_while_training(
    federation: Federation, administrator: Administrator
) -> None:
    federation.prepare(SitePlan("a", {}, step_delay_s=60.0), versions=1)
    federation.start()
    federation.trains("a")
    federation.kill("aggregator")  # so that nobody announces again: only the broker can
    federation.kill("a")
    rounds = federation.names("a").rounds
    federation.eventually("the announcement is back in its queue", lambda: administrator.ready(rounds) == 1)
    federation.hurry("a")
    federation.start_site("a")
    federation.published("a", 1)
    federation.start_aggregator()
    federation.reaches(1)
    assert settled(federation).accepted == 1


def test_nothing_doubled_when_a_site_is_killed_while_publishing_or_before_its_receipt(
    federation: Federation, administrator: Administrator
) -> None:
    federation.prepare(
        SitePlan("a", {"parameters": 6_000_000, "rows": 64}, step_delay_s=0.5, probe_s=0.5),
        task="site_worker.tasks.synthetic:synthetic",
        task_name="synthetic",
        codec="float32",
        versions=2,
    )
    updates = federation.names("a").updates
    federation.start()
    federation.trains("a")
    federation.kill("aggregator")
    administrator.limit(updates, max_bytes=7 * MIB)  # a full queue holds the site in the middle of its update
    federation.eventually("some parts are out", lambda: (administrator.ready(updates) or 0) >= 2)
    federation.kill("a")
    parts = part_count(federation.outbox("a", "SELECT payload_bytes FROM updates")[0][0])
    assert 0 < (administrator.ready(updates) or 0) < parts
    administrator.limit(updates, max_bytes=None)

    federation.start_aggregator()
    federation.eventually("the parts are kept", lambda: bool(federation.journal("SELECT 1 FROM parts LIMIT 1")))
    federation.start_site("a")
    federation.reaches(1)

    federation.trains("a", above=0)
    federation.kill("aggregator")
    federation.published("a", 2)
    federation.kill("a")  # between the broker's confirm and the aggregator's receipt
    federation.start()
    federation.reaches(2)
    assert settled(federation).accepted == 2
    assert not federation.journal("SELECT 1 FROM unfinished")
