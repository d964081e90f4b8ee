"""Receipts: cumulative, bounded, never claiming what was not settled."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.settlement import REFUSALS_LISTED, Receipts, Settlement
from broker.messages import Receipt
from tests.aggregator.bench import floats
from tests.aggregator.conftest import MakeBench

INCARNATION = bytes(16)


def receipt_of(settlement: Settlement) -> Receipt:
    return settlement.receipt(INCARNATION, answers=0)


def test_what_is_in_order_is_one_number_and_what_is_ahead_is_listed() -> None:
    settlement = Settlement()
    for sequence in (1, 2, 5, 4):
        settlement.settle(sequence)
    assert (receipt_of(settlement).through, receipt_of(settlement).beyond) == (2, [4, 5])
    settlement.settle(3)
    assert (receipt_of(settlement).through, receipt_of(settlement).beyond) == (5, [])


def test_once_settled_a_sequence_stays_as_it_is() -> None:
    settlement = Settlement()
    settlement.settle(1)
    settlement.settle(1, "too late")
    settlement.settle(2, "norm")
    settlement.settle(2)
    assert receipt_of(settlement).refused == [(2, "norm")]


def test_reasons_that_the_site_has_read_are_forgotten_and_stay_settled() -> None:
    settlement = Settlement()
    for sequence in (1, 2, 3):
        settlement.settle(sequence, f"reason {sequence}")
    settlement.forget(2)
    assert receipt_of(settlement).refused == [(3, "reason 3")]
    assert receipt_of(settlement).through == 3


def test_a_receipt_stops_before_the_first_refusal_it_cannot_list() -> None:
    settlement = Settlement()
    for sequence in range(1, 701):
        settlement.settle(sequence, "no" if sequence > 100 else None)
    first = receipt_of(settlement)  # 101..600 are the 500 that are listed; 601 is not
    assert (first.through, len(first.refused)) == (100 + REFUSALS_LISTED, REFUSALS_LISTED)
    settlement.forget(first.through)
    second = receipt_of(settlement)
    assert (second.through, [sequence for sequence, _ in second.refused]) == (700, list(range(601, 701)))


def test_what_is_ahead_stops_there_too() -> None:
    settlement = Settlement()
    for sequence in range(2, 600):
        settlement.settle(sequence, "no")
    receipt = receipt_of(settlement)
    assert (receipt.through, receipt.beyond) == (0, list(range(2, 502)))
    assert [sequence for sequence, _ in receipt.refused] == receipt.beyond


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.sampled_from([None, "norm", "task"])), max_size=120),
    st.integers(0, 60),
)
def test_in_any_order_a_receipt_says_exactly_the_set(calls: list[tuple[int, str | None]], known: int) -> None:
    settlement, said = Settlement(), dict[int, str | None]()
    for sequence, reason in calls:
        settlement.settle(sequence, reason)
        said.setdefault(sequence, reason)
    settlement.forget(known)
    receipt = receipt_of(settlement)
    assert {*range(1, receipt.through + 1), *receipt.beyond} == set(said)
    assert receipt.through + 1 not in said
    assert dict(receipt.refused) == {one: why for one, why in said.items() if why is not None and one > known}


@settings(max_examples=100)
@given(st.dictionaries(st.integers(1, 40), st.sampled_from([None, "norm", "x" * 900])))
def test_restored_it_is_what_it_was(states: dict[int, str | None]) -> None:
    live = Settlement()
    for sequence, reason in states.items():
        live.settle(sequence, reason)
    accepted = [one for one, reason in states.items() if reason is None]
    refused = {one: reason for one, reason in states.items() if reason is not None}
    restored = Settlement.restored(accepted, refused)
    assert receipt_of(restored) == receipt_of(live)
    assert all(len(reason) <= 400 for _, reason in receipt_of(restored).refused)  # more would break the wire's schema


def test_the_journal_restores_what_the_loop_had(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.start()
    site = bench.sites["A"]
    for sequence, task in ((1, "sepsis"), (2, "other"), (5, "sepsis"), (4, "other")):
        bench.feed(site.update(sequence, floats(1, 1, 1, 1), task=task))
    live = bench.loop._receipts.of("A", site.incarnation, known=0)
    bench.boot()
    restored = bench.loop._receipts.of("A", site.incarnation, known=0)
    assert restored == live
    assert receipt_of(restored).through == 2
    assert [sequence for sequence, _ in receipt_of(restored).refused] == [2, 4]


def test_an_incarnation_knows_nothing_of_another(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.start()
    bench.feed(bench.sites["A"].update(1, floats(1, 1, 1, 1)))
    again = bench.loop._receipts.of("A", bytes(16), known=0)
    assert (again.through, again.beyond) == (0, set())


def test_one_receipt_a_site_is_in_flight_and_the_next_says_it_all(make_bench: MakeBench) -> None:
    bench = make_bench()
    receipts = Receipts(bench.sites["A"].party, bench.journal, {})
    receipts.of("A", INCARNATION, known=0).settle(1)
    (first,) = receipts.leave()
    for sequence in (2, 3):
        receipts.of("A", INCARNATION, known=0).settle(sequence)
    receipts.of("B", INCARNATION, known=0).settle(1)
    assert [one.message.token for one in receipts.leave()] == [("receipt", "B")]
    receipts.left(first.message.token)
    assert [one.message.token for one in receipts.leave()] == [("receipt", "A")]
    assert receipts.leave() == []
    receipts.of("B", INCARNATION, known=0)
    assert receipts.leave() == [], "the first to B is still with the link"


@pytest.mark.parametrize("nonce", [1, 7])
def test_a_hello_is_answered_by_its_number(make_bench: MakeBench, nonce: int) -> None:
    bench = make_bench()
    bench.up()
    bench.feed(bench.sites["A"].hello(nonce))
    assert [one.answers for one in bench.receipts("A")] == [nonce]
    bench.boot()
    bench.up()
    bench.feed(bench.sites["A"].update(1, floats(1, 1, 1, 1)))
    assert [one.answers for one in bench.receipts("A")] == [nonce]
