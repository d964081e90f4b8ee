"""From the outbox to the aggregator: one update at a time, until a receipt settles it."""

from dataclasses import replace
from typing import Any

import pytest

from broker.drive import Ack, Tick
from broker.identity import PrivateKey
from broker.link import Down, Returned
from broker.messages import Party
from site_worker.dispatch import PATIENCE, RETRY_S
from site_worker.effects import KeepNonce, Mark, SendPart, Settle, Store
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
    assert connected.confirm(2, 0) == [SendPart(2, 1, 0)]
    assert connected.confirm(2, 0) == []
    assert connected.confirm(2, 1) == [SendPart(2, 2, 0)]
    assert connected.confirm(2, 2) == [Mark((2,), published=True)]


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
