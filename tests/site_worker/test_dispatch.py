"""From the outbox to the aggregator: one update at a time, until a receipt settles it."""

from dataclasses import replace
from typing import Any

import pytest

from broker.drive import Ack, Tick
from broker.identity import PrivateKey
from broker.link import Down, Returned
from broker.messages import Party, bitmap
from site_worker.dispatch import PATIENCE, RETRY_S
from site_worker.effects import KeepNonce, Mark, NoteSent, SendPart, Settle, Store
from site_worker.outbox import Settled
from tests.site_worker.bench import PROBE_S, Aggregator, Site, only, published


def trained(site: Site, *versions: int, payload: bytes = b"payload") -> list[Any]:
    """Train from these versions, one after the other; the effects of all."""
    effects = []
    for version in versions:
        announcement = site.aggregator.announce(version)
        site.feed(site.aggregator.announced(announcement))
        site.feed(*site.aggregator.model(announcement))
        effects += site.trained(announcement, payload)
    return effects


def receipt(site: Site, through: int, **changes: Any) -> list[Any]:
    return site.feed(site.aggregator.receipt(site.outbox.incarnation, through, **changes))


def settled(effects: list[Any]) -> list[Settled]:
    return [one for effect in only(effects, Settle) for one in effect.settled]


@pytest.fixture
def connected(site: Site) -> Site:
    site.up()
    return site


def test_one_update_is_on_its_way_at_a_time(connected: Site) -> None:
    assert only(trained(connected, 0, 1, 2), SendPart) == [SendPart(1, 0, 0)]
    assert connected.confirm(1) == [Mark((1,), published=True), SendPart(2, 0, 0)]
    assert connected.confirm(1) == []  # an old confirm
    assert connected.confirm(2) == [Mark((2,), published=True), SendPart(3, 0, 0)]


def test_part_by_part(connected: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    effects = trained(connected, 0)
    connected.confirm(1)
    monkeypatch.setattr("broker.messages.PART_BYTES", 3)
    effects = connected.loop._dispatch.added(2, 7)
    assert effects == [SendPart(2, 0, 0)]
    assert connected.confirm(2, 0)[:2] == [NoteSent(2, 1), SendPart(2, 1, 0)]
    assert connected.confirm(2, 0) == []
    connected.now += 2
    assert connected.confirm(2, 1)[:2] == [NoteSent(2, 2), SendPart(2, 2, 0)]
    assert connected.state()[2] == "sending update 2: 85 % of 7 bytes, 2 bytes/s, 1 s left"
    assert connected.confirm(2, 2)[0] == Mark((2,), published=True)


@pytest.fixture
def parted(connected: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Update 1 in four parts, of which the broker has the first two."""
    trained(connected, 0, payload=b"1234567")
    monkeypatch.setattr("broker.messages.PART_BYTES", 2)
    connected.confirm(1, 0)
    connected.confirm(1, 1)
    return connected


def test_after_a_restart_an_upload_goes_on_at_the_part_that_is_missing(parted: Site) -> None:
    parted.boot()
    assert only(parted.up(), SendPart) == [SendPart(1, 2, 0)]


def answer(site: Site, *parts: int) -> list[Any]:
    """Say hello; the effects of the receipt that answers it, and has these parts of update 1."""
    site.now += PROBE_S * PATIENCE
    (hello,) = site.hellos(site.feed(Tick()))
    return receipt(site, 0, answers=hello.nonce, arrived=[(1, bitmap(parts))] if parts else [])


def sent(site: Site, effects: list[Any]) -> list[int]:
    """The parts that are sent from now on, each confirmed at once."""
    parts: list[int] = []
    while asked := only(effects, SendPart):
        parts += [one.part for one in asked]
        effects = site.confirm(1, asked[-1].part)
    return parts


def test_of_a_lost_update_only_the_parts_that_are_not_there_are_sent_again(parted: Site) -> None:
    parted.confirm(1, 2)
    parted.confirm(1, 3)
    assert sent(parted, answer(parted, 0, 3)) == [1, 2]


def test_parts_that_were_lost_while_others_are_being_sent_are_sent_after_all(parted: Site) -> None:
    assert only(answer(parted, 1), SendPart) == []  # part 2 is on its way
    assert sent(parted, parted.confirm(1, 2)) == [0, 3]


def test_of_parts_that_were_sent_after_the_hello_an_answer_says_nothing(parted: Site) -> None:
    parted.now += PROBE_S * PATIENCE
    (hello,) = parted.hellos(parted.feed(Tick()))
    effects = parted.confirm(1, 2)
    receipt(parted, 0, answers=hello.nonce, arrived=[(1, bitmap([0, 1]))])
    assert sent(parted, effects) == [3]


def test_a_receipt_settles_accepted_and_refused(connected: Site) -> None:
    trained(connected, 0, 1, 2, 3)
    effects = receipt(connected, 2, beyond=[4], refused=[(2, "norm 7 is over the limit")])
    assert settled(effects) == [
        Settled(1, "accepted"), Settled(2, "refused", "norm 7 is over the limit"), Settled(4, "accepted"),
    ]  # fmt: skip
    assert list(connected.outbox.waiting()) == [3]
    assert settled(receipt(connected, 2, beyond=[4])) == []  # cumulative, so it comes again and again


def test_the_settlement_is_stored_before_the_receipt_is_acked(connected: Site) -> None:
    trained(connected, 0)
    delivery = connected.aggregator.receipt(connected.outbox.incarnation, 1)
    effects = connected.feed(delivery)
    assert effects.index(only(effects, Settle)[0]) < effects.index(Ack(delivery))


def test_what_was_settled_is_said_with_the_next_update(connected: Site) -> None:
    trained(connected, 0)
    connected.confirm(1)
    receipt(connected, 1)
    assert only(trained(connected, 1), SendPart) == [SendPart(2, 0, 1)]


@pytest.mark.parametrize("kind", ["incarnation", "forged", "for another site", "garbage"])
def test_a_receipt_that_is_not_for_us_settles_nothing(connected: Site, kind: str) -> None:
    trained(connected, 0)
    own, aggregator = connected.outbox.incarnation, connected.aggregator
    forger = Aggregator(Party("fed", "aggregator", PrivateKey.generate()))
    other = aggregator.sealed(aggregator.peer.open(  # the same receipt, sealed for site B
        aggregator.receipt(own, 1).body, recipients=frozenset({"A"}))[0], "fq.fed.A.receipts", to="B")  # fmt: skip
    delivery = {
        "incarnation": aggregator.receipt(bytes(16), 1),
        "forged": forger.receipt(own, 1),
        "for another site": other,
        "garbage": replace(other, body=b"?"),
    }[kind]
    effects = connected.feed(delivery)
    assert Ack(delivery) in effects
    assert (settled(effects), list(connected.outbox.waiting())) == ([], [1])


def test_an_update_published_before_the_answered_hello_and_not_settled_was_lost(connected: Site) -> None:
    trained(connected, 0)
    connected.confirm(1)
    connected.now += PROBE_S * PATIENCE
    (hello,) = connected.hellos(connected.feed(Tick()))
    effects = receipt(connected, 0, answers=hello.nonce)
    assert (only(effects, Mark), only(effects, SendPart)) == ([Mark((1,), published=False)], [SendPart(1, 0, 0)])


def test_an_update_published_after_the_hello_is_not_suspected(connected: Site) -> None:
    (hello,) = connected.hellos(connected.up())
    trained(connected, 0)
    connected.confirm(1)
    assert only(receipt(connected, 0, answers=hello.nonce), SendPart) == []
    assert connected.outbox.waiting() == {1: (7, True)}


def test_the_answer_to_an_older_hello_proves_nothing(connected: Site) -> None:
    trained(connected, 0)
    connected.confirm(1)
    connected.up()
    (newest,) = connected.hellos(connected.up())
    assert only(receipt(connected, 0, answers=newest.nonce - 1), Mark) == []
    assert only(receipt(connected, 0, answers=newest.nonce), Mark) == [Mark((1,), published=False)]


def test_it_probes_only_while_something_is_unanswered(connected: Site) -> None:
    (hello,) = connected.hellos(connected.up())
    receipt(connected, 0, answers=hello.nonce)
    connected.now += PROBE_S
    assert connected.hellos(connected.feed(Tick())) == []
    trained(connected, 0)
    connected.confirm(1)
    connected.now += PROBE_S
    assert len(connected.hellos(connected.feed(Tick()))) == 1


def test_after_a_restart_what_was_confirmed_waits_for_a_probe(connected: Site) -> None:
    trained(connected, 0, 1)
    connected.confirm(1)
    connected.boot()
    effects = connected.up()
    assert only(effects, SendPart) == [SendPart(2, 0, 0)]
    (hello,) = connected.hellos(effects)
    assert (hello.incarnation, hello.made, hello.settled) == (connected.outbox.incarnation, 2, 0)
    assert Mark((1,), published=False) in receipt(connected, 0, answers=hello.nonce)


def test_the_number_of_a_hello_is_stored_first_and_never_used_twice(connected: Site) -> None:
    numbers = []
    for _ in range(3):
        connected.boot()
        effects = connected.up()
        (hello,) = connected.hellos(effects)
        numbers.append(hello.nonce)
        at = effects.index(KeepNonce(hello.nonce))
        assert not published(effects[:at])
    assert numbers == sorted(set(numbers))


def test_what_no_queue_takes_is_tried_again_after_a_while(connected: Site) -> None:
    trained(connected, 0)
    assert only(connected.feed(Returned(("update", 1, 0), "No queue takes it.")), SendPart) == []
    assert connected.detail() == "No queue takes it."
    connected.now += RETRY_S - 0.5
    assert only(connected.feed(Tick()), SendPart) == []
    connected.now += 0.5
    assert only(connected.feed(Tick()), SendPart) == [SendPart(1, 0, 0)]
    connected.confirm(1)
    assert connected.detail() == ""


def test_a_hello_that_no_queue_takes_is_said_again(site: Site) -> None:
    (hello,) = site.hellos(site.up())
    site.feed(Returned(("hello", hello.nonce), "No queue takes it."))
    site.now += RETRY_S
    assert [one.nonce for one in site.hellos(site.feed(Tick()))] == [hello.nonce + 1]


def test_a_receipt_may_settle_what_is_on_its_way(connected: Site) -> None:
    trained(connected, 0, 1)
    receipt(connected, 1)
    assert only(connected.confirm(1), SendPart) == [SendPart(2, 0, 1)]


def test_what_was_handed_to_the_link_stays_there_when_it_goes_down(connected: Site) -> None:
    trained(connected, 0)
    connected.feed(Down("cut"))
    assert only(connected.up(), SendPart) == []
    assert connected.confirm(1) == [Mark((1,), published=True)]


def test_a_number_settled_is_not_given_to_the_next_update(connected: Site) -> None:
    trained(connected, 0)
    receipt(connected, 1)
    connected.boot()
    connected.up()
    assert [one.made.sequence for one in only(trained(connected, 1), Store)] == [2]


def test_a_site_with_nothing_open_says_hello_now_and_then_so_that_a_lost_announcement_comes_again(site: Site) -> None:
    (hello,) = site.hellos(site.up())
    receipt(site, 0, answers=hello.nonce)
    said: list[float] = []
    for _ in range(3 * PATIENCE):
        site.now += PROBE_S
        said += [site.now - 100.0 for _ in site.hellos(site.feed(Tick()))]
    assert said == [PATIENCE * PROBE_S, 2 * PATIENCE * PROBE_S, 3 * PATIENCE * PROBE_S]
