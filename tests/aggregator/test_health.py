"""What is wrong, what is waited for, and whether it failed or is slow: from a status written by hand."""

from dataclasses import replace
from typing import Any

import pytest

from aggregator.console import Console
from aggregator.health import troubles
from aggregator.sitestatus import SiteStatus
from aggregator.status import Disk, Status
from aggregator.verdict import verdict, waits_for

NOW = 100_000.0


def site(name: str, state: Any = "idle", **more: Any) -> SiteStatus:
    known = {"usual_s": 10.0, "newest_at": NOW - 12, "since": NOW - 500, "account": f"fed.{name}"}
    return SiteStatus(name, state, 7, 0, 3, 0, NOW - 20, **{**known, **more})


HEALTHY = Status(
    federation="fed", running=True, link="connected", troubles={}, version=7, made_at=NOW - 30, usual_gap_s=20.0,
    started=True, paused=False, last_version=0, strategy="patient", switch_pending=False, buffered=1, accepted=9,
    refused=0, min_sites=2, greeted=3, missing={}, console=Console(NOW - 3),
    sites=(site("A", "training"), site("B"), site("C", "training")), transfers=(),
    disk=Disk(1, 1, 1, 1, 0, None),
)  # fmt: skip


def with_c(**changes: Any) -> Status:
    a, b, c = HEALTHY.sites
    return replace(HEALTHY, sites=(a, b, replace(c, **changes)))


WRONG = [
    ("nothing", HEALTHY, []),
    ("the service", replace(HEALTHY, running=False), [("aggregator-down", "")]),
    ("its login", replace(HEALTHY, running=False, troubles={"ended": "no"}), [("login-refused", "")]),
    ("the broker", replace(HEALTHY, troubles={"down": "refused"}), [("broker-down", "")]),
    (
        "the broker's disk",
        replace(HEALTHY, troubles={"stuck": "It takes no messages: its disk or memory is short."}),
        [("broker-alarm", "")],
    ),
    ("as the console says", replace(HEALTHY, console=Console(NOW, alarms=("disk on x",))), [("broker-alarm", "")]),
    ("the disk", replace(HEALTHY, disk=Disk(1, 0, 1, 1, 0, "waiting: disk full on /")), [("disk-full", "")]),
    ("the disk of a writer", replace(HEALTHY, troubles={"disk": "full"}), [("disk-full", "")]),
    ("a queue", replace(HEALTHY, missing={"fq.fed.B.rounds": NOW - 5}), [("queue-missing", "B")]),
    ("a queue, long ago", replace(HEALTHY, missing={"fq.fed.B.rounds": NOW - 500}), []),
    ("the models", replace(HEALTHY, missing={"fq.fed.models": NOW - 5}), [("queue-missing", "")]),
    ("a flood", replace(HEALTHY, console=Console(NOW, waiting={"A": 2 << 30, "B": 5})), [("backlog", "A")]),
    ("away", with_c(state="away"), [("site-away", "C")]),
    ("resting", with_c(state="resting"), [("site-resting", "C")]),
    ("slow", with_c(usual_s=50.0), [("site-slow", "C")]),
    ("not quite slow", with_c(usual_s=49.0), []),
    ("stuck", with_c(newest_at=NOW - 901, since=NOW - 5000), [("site-stuck", "C")]),
    ("back since", with_c(newest_at=NOW - 9000, since=NOW - 899), []),
    ("slow, not stuck", with_c(newest_at=NOW - 901, usual_s=91.0, since=0.0), [("site-slow", "C")]),
    ("key", with_c(refusal="The signature is not by the key enrolled for C.", refused_at=1.0), [("wrong-key", "C")]),
    ("account", with_c(refusal="It was published by account 'x', not by 'y'.", refused_at=1.0), [("wrong-key", "C")]),
    ("update", with_c(refusal="the delta's norm 2e+09 is over", refused_at=1.0), [("update-refused", "C")]),
    ("gone", with_c(state="removed", refusal="the delta", refused_at=1.0), []),
]


@pytest.mark.parametrize(("status", "expected"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_each_fault_has_its_cause(status: Status, expected: list[tuple[str, str]]) -> None:
    assert [(one.cause.name, one.site) for one in troubles(status, NOW)] == expected


def test_a_site_that_is_away_because_its_login_is_refused_is_told_apart() -> None:
    console = Console(NOW, refused={"fed.C": NOW - 40, "other.B": NOW - 40})
    (found,) = troubles(replace(with_c(state="away"), console=console), NOW)
    assert (found.cause.name, found.site, found.since) == ("login-refused", "C", NOW - 40)
    assert troubles(replace(HEALTHY, console=console), NOW) == []


def test_nothing_is_known_of_sites_while_the_broker_is_away() -> None:
    lost = replace(with_c(state="away"), troubles={"down": "It does not answer."})
    assert [one.cause.name for one in troubles(lost, NOW)] == ["broker-down"]


BUSY = "(the last came 12 s ago, a round takes 10 s)"
GONE = (site("A", "away"), site("B", "resting"))
WAITS = [
    (
        HEALTHY,
        "updates of A (the last came 12 s ago, a round takes 10 s), C (the last came 12 s ago, a round takes 10 s)",
    ),
    (replace(HEALTHY, running=False), "somebody to start it"),
    (replace(HEALTHY, link="waiting: the broker is away."), "the broker is away."),
    (replace(HEALTHY, started=False, greeted=1), "hospitals to say hello: 1 of 2 have"),
    (replace(HEALTHY, paused=True), "somebody to resume it with 'fedqueue aggregator resume'"),
    (replace(HEALTHY, last_version=7), "nothing: training has ended at version 7"),
    (
        replace(HEALTHY, sites=(site("A", "away"), site("B", "resting"))),
        "a hospital that trains: A is away, B is resting",
    ),
    (replace(HEALTHY, sites=(site("A"),)), "hospitals to fetch the newest model"),
    (replace(HEALTHY, sites=(site("A", "training", newest_at=None),)), "updates of A (its first)"),
]


@pytest.mark.parametrize(("status", "expected"), WAITS)
def test_what_it_waits_for(status: Status, expected: str) -> None:
    assert waits_for(status, NOW) == expected


LATE = replace(HEALTHY, made_at=NOW - 61)
AGO = "version 7 was made 61 s ago"
VERDICTS = [
    (HEALTHY, "going on; version 7 was made 30 s ago; one takes 20 s usually"),
    (
        replace(HEALTHY, usual_gap_s=0.046, made_at=NOW),
        "going on; version 7 was made 0 s ago; one takes 0.05 s usually",
    ),
    (replace(HEALTHY, usual_gap_s=None), "going on; version 7 was made 30 s ago"),
    (LATE, "slow, not failed: hospitals are training; version 7 was made 61 s ago; one takes 20 s usually"),
    (
        replace(LATE, sites=()),
        f"waiting, not failed: no hospital trains; {AGO}; one takes 20 s usually",
    ),
    (replace(LATE, paused=True, usual_gap_s=None), "paused; version 7 was made 61 s ago"),
    (replace(LATE, last_version=7, usual_gap_s=None), "finished; version 7 was made 61 s ago"),
    (
        replace(LATE, started=False, usual_gap_s=None),
        f"waiting: version 0 has not gone out yet; {AGO}",
    ),
    (
        replace(LATE, running=False, usual_gap_s=None),
        "failed: it stands still (aggregator-down); version 7 was made 61 s ago",
    ),
]


@pytest.mark.parametrize(("status", "expected"), VERDICTS)
def test_failed_or_slow(status: Status, expected: str) -> None:
    assert verdict(status, NOW) == expected
