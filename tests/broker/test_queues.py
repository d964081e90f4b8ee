"""What queues say: records as the management API gives them, and the words for them."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.queues import federations, read_queues, troubles

NOW = 1_800_000_000.0


def record(name: str, ready: int = 0, unacked: int = 0, consumers: int = 1, **more: Any) -> dict[str, Any]:
    counts = {"messages_ready": ready, "messages_unacknowledged": unacked, "consumers": consumers}
    return {"name": f"fq.fed.{name}", **counts, **more}


def queues(site: str, **changed: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Those of a site that is idle, but for what is `changed`; None leaves a queue out."""
    found = {role: changed.get(role, {}) for role in ("rounds", "updates", "receipts")}
    return [record(f"{site}.{role}", **more) for role, more in found.items() if more is not None]


SHARED = [record("models", 9, consumers=0), record("refused", consumers=0)]
AWAY = {"rounds": {"consumers": 0}, "receipts": {"consumers": 0}}


def line(cause: str, site: str = "A", *, ago_s: float = 5.0, reason: str = "why") -> str:
    at = datetime.fromtimestamp(NOW - ago_s, UTC).isoformat(timespec="seconds")
    return json.dumps({"at": at, "cause": cause, "site": site, "reason": reason})


DOING = [
    ({}, "idle"),
    ({"rounds": {"unacked": 1}}, "training"),
    ({"rounds": {"unacked": 1, "ready": 1}}, "training, and a newer version waits"),
    (AWAY, "away"),
    ({"rounds": {"consumers": 0, "ready": 1}}, "resting"),
    ({"rounds": None}, "unknown: its rounds queue is missing"),
]


@pytest.mark.parametrize(("changed", "expected"), DOING)
def test_what_a_hospital_is_doing(changed: Mapping[str, Any], expected: str) -> None:
    (site,) = read_queues("fed", [*queues("A", **changed), *SHARED]).sites
    assert site.doing == expected


def test_what_waits_for_the_aggregator_is_counted() -> None:
    some, none = read_queues(
        "fed", [*queues("A", updates={"ready": 2, "unacked": 1, "message_bytes": 3_100_000}), *queues("B")]
    ).sites
    assert (some.waiting, none.waiting) == ("3 messages, 3.1 MB", "nothing")


WRONG: list[tuple[str, Mapping[str, Any], list[str], list[tuple[str, str]]]] = [
    ("nothing", {}, [], []),
    ("away", AWAY, [], [("site-away", "A")]),
    ("resting", {"rounds": {"consumers": 0}}, [], [("site-resting", "A")]),
    ("slow", {"rounds": {"unacked": 1, "ready": 1}}, [], [("site-slow", "A")]),
    ("missing", {"receipts": None}, [], [("queue-missing", "A")]),
    (
        "flood",
        {"updates": {"message_bytes": 51, "arguments": {"x-max-length-bytes": 100}}},
        [],
        [("backlog", "A")],
    ),
    ("key", {}, [line("wrong-key")], [("wrong-key", "A")]),
    ("accepted again", {}, [line("wrong-key"), line("")], []),
    ("refused again", {}, [line(""), line("update-refused")], [("update-refused", "A")]),
    ("login", AWAY, [line("login-refused")], [("login-refused", "A")]),
    ("login mended", {}, [line("login-refused")], []),
    ("was missing", {}, [line("queue-missing", "")], [("queue-missing", "")]),
    ("was missing long ago", {}, [line("queue-missing", "", ago_s=61)], []),
    (
        "a queue after a key",
        {},
        [line("wrong-key"), line("queue-missing", "A")],
        [("queue-missing", "A"), ("wrong-key", "A")],
    ),
    ("an older release's line", {}, ['{"site": "A", "reason": "x"}', "no JSON", "[1]"], []),
    ("a cause of a newer release", {}, [line("what-is-that")], []),
]


@pytest.mark.parametrize(("changed", "lines", "expected"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_each_fault_has_its_cause(
    changed: Mapping[str, Any], lines: list[str], expected: list[tuple[str, str]]
) -> None:
    found = read_queues("fed", [*queues("A", **changed), *queues("B"), *SHARED], lines)
    assert [(one.cause.name, one.site) for one in troubles(found, NOW)] == expected


def test_without_consumers_of_updates_there_is_no_aggregator() -> None:
    unread = {"updates": {"consumers": 0}}
    found = read_queues("fed", [*queues("A", **unread), *queues("B", **unread), *SHARED])
    assert [one.cause.name for one in troubles(found, NOW)] == ["aggregator-down"]


def test_alarms_and_accounts_that_never_got_in_are_told() -> None:
    found = read_queues("fed", [*queues("A", **AWAY), *queues("B"), *SHARED])
    wrong = troubles(found, NOW, alarms=["disk on x"], never_in=["A", "B"])
    assert [(one.cause.name, one.site, one.detail) for one in wrong] == [
        ("broker-alarm", "", "disk on x"), ("login-refused", "A", ""),
    ]  # fmt: skip


def test_all_slow_is_nobody_slow() -> None:
    behind = {"rounds": {"unacked": 1, "ready": 1}}
    found = read_queues("fed", [*queues("A", **behind), *queues("B", **behind), *SHARED])
    assert troubles(found, NOW) == []


def test_a_missing_shared_queue_is_the_federations() -> None:
    found = read_queues("fed", queues("A"))
    assert [(one.cause.name, one.site) for one in troubles(found, NOW)] == [("queue-missing", "")] * 2


def test_federations_are_found_by_their_queues() -> None:
    names = [{"name": "fq.b.A.rounds"}, {"name": "fq.a.models"}, {"name": "other"}, {"name": "fq.alone"}]
    assert federations(names) == ["a", "b"]
