"""Lines for people at the console: each change once, never a flood, and the newest tells how things stand."""

import json
from pathlib import Path
from typing import Any

from aggregator.console import Console
from aggregator.effects import Refuse
from aggregator.notices import AT_ONCE, Notices
from broker.drive import Declare, Publish, Tick
from broker.link import Cancelled
from tests.aggregator.bench import bench, floats, only, published


def refusal(reason: str = "the delta's norm", at: float = 1.0) -> Refuse:
    return Refuse("A", b"i", 7, reason, 26, at)


def lines(effects: list[Publish]) -> list[dict[str, Any]]:
    assert all(one.message.routing_key == "fq.fed.refused" for one in effects)
    return [json.loads(one.message.body) for one in effects]


def test_a_refusal_is_told_with_time_cause_and_reason() -> None:
    (line,) = lines(Notices("fed", []).refused(refusal()))
    assert line == {
        "at": "1970-01-01T00:00:01Z", "cause": "update-refused", "site": "A", "reason": "the delta's norm",
        "sequence": 7, "bytes": 26,
    }  # fmt: skip


def test_an_accepted_update_is_told_only_after_a_refusal_and_once() -> None:
    notices = Notices("fed", ["B"])
    assert notices.accepted("A", 1.0) == []
    notices.refused(refusal())
    (line,) = lines(notices.accepted("A", 2.0))
    assert (line["cause"], line["reason"]) == ("", "its updates are accepted again")
    assert notices.accepted("A", 3.0) == []
    assert len(notices.accepted("B", 4.0)) == 1  # refused before the service started


def test_refused_logins_are_told_when_they_begin_and_when_they_end() -> None:
    notices = Notices("fed", [])
    told = lines(notices.logins({"fed.A": 1.0, "other.B": 1.0}, 2.0))
    assert [(one["cause"], one["site"]) for one in told] == [("login-refused", "A")]
    assert notices.logins({"fed.A": 1.0}, 3.0) == []
    assert [(one["cause"], one["site"]) for one in lines(notices.logins({}, 4.0))] == [("", "A")]


def test_a_deleted_queue_is_told() -> None:
    (line,) = lines(Notices("fed", []).missing("fq.fed.A.rounds", 1.0))
    assert (line["cause"], line["site"]) == ("queue-missing", "A")
    assert line["reason"] == "fq.fed.A.rounds was missing; it is declared again"


def test_junk_does_not_queue_up_and_goes_on_once_there_is_room() -> None:
    notices = Notices("fed", [])
    sent = [one for number in range(AT_ONCE + 5) for one in notices.refused(refusal(at=float(number)))]
    assert len(sent) == AT_ONCE
    notices.left(sent[0].message.token)
    assert len(notices.refused(refusal())) == 1
    assert notices.refused(refusal()) == []


def test_who_is_troubled_is_known_again_after_a_restart(tmp_path: Path) -> None:
    made = bench(tmp_path, model=floats(0, 0))
    made.start()
    a, b = made.sites["A"], made.sites["B"]
    made.feed(a.update(1, floats(1, 1), task="another"))
    made.feed(b.update(1, floats(1, 1), task="another"))
    assert made.journal.troubled() == ["A", "B"]
    made.now += 1.0
    made.feed(a.update(2, floats(1, 1)))
    assert made.journal.troubled() == ["B"]
    made.close()


def test_a_console_that_falls_silent_accepts_nobodys_login_again(tmp_path: Path) -> None:
    made = bench(tmp_path, model=floats(0, 0))
    made.start()
    account = {"fed.A": 1.0}
    assert len(published(made.feed(Console(1.0, refused=account)))) == 1
    assert published(made.feed(Console(2.0, error="It does not answer."))) == []
    assert published(made.feed(Console(3.0, refused=account))) == []
    made.close()


def test_a_queue_that_is_only_not_up_yet_is_consumed_again_and_blamed_on_nobody(tmp_path: Path) -> None:
    made = bench(tmp_path, model=floats(0, 0))
    made.start()
    queue = "fq.fed.A.updates"
    assert published(made.feed(Cancelled(queue, "The queue is not up yet.", gone=False))) == []
    assert made.journal.fact("missing") is None
    made.now += 3.0
    assert only(made.feed(Tick()), Declare)
    (line,) = lines([one for one in made.feed(Cancelled(queue, "It was deleted.")) if isinstance(one, Publish)])
    assert line["cause"] == "queue-missing"
    assert made.journal.fact("missing") is not None
    made.close()
