"""Pausing a hospital, pausing the federation, several hospitals in one process: over a real broker, by the commands."""

from deploy.local import SitePlan
from tests.acceptance.books import settled
from tests.acceptance.commands import fedqueue
from tests.acceptance.federation import Federation


def test_a_paused_hospital_rests_holds_up_nobody_and_counts_again_when_it_goes_on(federation: Federation) -> None:
    federation.prepare(
        SitePlan("a", {"site": 1}), SitePlan("b", {"site": 2}), versions=0, max_wait_s=600, buffer_size=9
    )
    assert fedqueue("site", "pause", federation.site("a").path).returncode == 0
    federation.start()
    federation.eventually("a rests", lambda: federation.site_status("a").state == "resting")
    federation.reaches(2)  # "every present site has contributed": a does not count as present
    shown = fedqueue("site", "status", federation.site("a").path).stdout
    assert "resting" in shown
    assert "paused at this hospital" in shown
    assert not federation.outbox("a", "SELECT 1 FROM updates")
    federation.eventually(
        "a is seen to rest", lambda: {site.site: site.state for site in federation.status().sites}["a"] == "resting"
    )

    assert fedqueue("site", "resume", federation.site("a").path).returncode == 0
    federation.eventually("a counts", lambda: bool(federation.journal("SELECT 1 FROM updates WHERE site = 'a'")))
    assert fedqueue("aggregator", "stop-after", federation.aggregator.path, 1).returncode == 0
    federation.finished()
    assert settled(federation).refused == 0


def test_a_paused_federation_waits_and_goes_on(federation: Federation) -> None:
    federation.prepare(SitePlan("a", {"site": 1}), SitePlan("b", {"site": 2}), versions=0)
    federation.start()
    federation.reaches(2)
    assert fedqueue("aggregator", "pause", federation.aggregator.path).returncode == 0
    paused = "the federation is paused"
    federation.eventually("all wait", lambda: all(federation.site_status(s).detail == paused for s in "ab"))
    settled(federation)
    version = federation.status().version
    assert (
        "paused: sites are asked for no training" in fedqueue("aggregator", "status", federation.aggregator.path).stdout
    )

    federation.kill("aggregator")  # the decision outlives it
    federation.start_aggregator()
    federation.eventually("it is connected", lambda: federation.status().link == "connected")
    assert federation.status().version == version
    assert fedqueue("aggregator", "resume", federation.aggregator.path).returncode == 0
    federation.reaches(version + 2)


def test_several_hospitals_in_one_process_are_each_their_own(federation: Federation) -> None:
    plans = [SitePlan(name, {"site": number}) for number, name in enumerate("abc")]
    federation.prepare(*plans, SitePlan("d", {"site": "not a number"}), versions=4, min_sites=3)
    federation.start_aggregator()
    federation.start_together("abcd")
    federation.reaches(4)
    federation.eventually("d has failed", lambda: federation.site_status("d").state == "failed")
    assert "The task raised TypeError" in federation.site_status("d").detail
    assert {row["site"] for row in federation.journal("SELECT site FROM updates")} == set("abc")
    federation.eventually("nothing waits", lambda: not federation.waiting())
    ledger = federation.balance()
    assert (ledger.lost, ledger.doubled) == (0, 0)
    assert federation.stop("a-and-3-more") == 2  # for d, which its log and its status name
