"""Who is there by the broker's word: present, away, resting; and queues that are gone."""

import json
from typing import Any

from aggregator.attendance import Attendance
from aggregator.effects import NotePresence, SetFact
from aggregator.journal import Enrolled
from broker.drive import Declare, Inspect
from broker.identity import PrivateKey
from broker.link import QueueState

KEY = PrivateKey.generate().public
ROUNDS, RECEIPTS = "fq.fed.A.rounds", "fq.fed.A.receipts"
HERE, NOBODY = QueueState(ready=0, consumers=1), QueueState(ready=0, consumers=0)


def attendance() -> Attendance:
    made = Attendance("fed", {"A": Enrolled("A", KEY, None)}, every_s=5.0, max_models_bytes=1 << 20)
    made.up(0.0)
    return made


def noted(effects: list[Any]) -> list[tuple[bool, int]]:
    return [(one.present, one.ready) for one in effects if isinstance(one, NotePresence)]


def resting(effects: list[Any]) -> list[list[str]]:
    return [json.loads(one.value) for one in effects if isinstance(one, SetFact) and one.name == "resting"]


def test_who_consumes_rounds_is_here_and_only_changes_are_noted() -> None:
    made = attendance()
    assert noted(made.seen({ROUNDS: HERE}, 1.0)) == [(True, 0)]
    assert noted(made.seen({ROUNDS: HERE}, 6.0)) == []
    assert noted(made.seen({ROUNDS: NOBODY}, 11.0)) == [(False, 0)]


def test_a_site_whose_queue_was_deleted_and_that_never_comes_back_is_away() -> None:
    made = attendance()
    made.seen({ROUNDS: HERE}, 1.0)
    assert noted(made.seen({ROUNDS: None}, 6.0)) == [(False, 0)]
    assert made.present == set()
    assert noted(made.seen({ROUNDS: NOBODY}, 11.0)) == []
    assert noted(made.seen({ROUNDS: HERE}, 16.0)) == [(True, 0)]


def test_who_reads_receipts_alone_rests() -> None:
    made = attendance()
    assert resting(made.seen({ROUNDS: NOBODY, RECEIPTS: HERE}, 1.0)) == [["A"]]
    assert resting(made.seen({ROUNDS: NOBODY, RECEIPTS: HERE}, 6.0)) == []
    assert resting(made.seen({ROUNDS: HERE, RECEIPTS: HERE}, 11.0)) == [[]]


def test_receipts_are_asked_for_of_those_alone_that_are_not_here() -> None:
    made = attendance()
    (first,) = made.tick(0.0)
    assert first == Inspect((ROUNDS, RECEIPTS))
    made.seen({ROUNDS: HERE, RECEIPTS: HERE}, 1.0)
    (second,) = made.tick(6.0)
    assert second == Inspect((ROUNDS,))


def test_a_deleted_queue_is_remembered_once_and_declared_again_before_long() -> None:
    made = attendance()
    (fact,) = made.missing(ROUNDS, 1.0)
    assert (fact.name, json.loads(fact.value)) == ("missing", {ROUNDS: 1.0})
    assert made.missing(ROUNDS, 2.0) == []
    assert [one for one in made.tick(2.9) if isinstance(one, Declare)] == []
    assert [one for one in made.tick(3.0) if isinstance(one, Declare)] != []
    (again,) = made.missing(ROUNDS, 40.0)
    assert json.loads(again.value) == {ROUNDS: 40.0}
