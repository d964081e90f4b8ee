"""A round at a site: held, fetched, trained, stored, and only then acknowledged."""

from dataclasses import replace
from typing import Any

import pytest

from broker.drive import Ack, Cancel, Consume, Tick
from broker.identity import PrivateKey
from broker.link import Cancelled, Delivery, Down
from broker.messages import Announcement, Party
from site_worker.download import STALLED_S, legs_to
from site_worker.effects import KeepModelPart, NoteSeen, Store, Train, TrainingFailed
from site_worker.loop import RETRY_S
from tests.site_worker.bench import MODEL, Aggregator, Site, made, only
from tests.site_worker.drafts import stored

STREAM = "fq.fed.models"


@pytest.fixture
def connected(site: Site) -> Site:
    site.up()
    return site


def announce(site: Site, version: int, **changes: Any) -> tuple[Announcement, Delivery, list[Any]]:
    announcement = site.aggregator.announce(version, **changes)
    delivery = site.aggregator.announced(announcement)
    return announcement, delivery, site.feed(delivery)


def training(site: Site, version: int) -> tuple[Announcement, Delivery]:
    """What was fetched before a crash or a failure is still here: only the first time anything is."""
    announcement, delivery, effects = announce(site, version)
    for part in site.aggregator.model(announcement) if only(effects, Consume) else ():
        effects += site.feed(part)
    assert len(only(effects, Train)) == 1
    return announcement, delivery


def test_the_announcement_is_acked_only_after_the_update_is_stored(connected: Site) -> None:
    announcement, delivery, first = announce(connected, 0)
    assert only(first, Consume) == [Consume(STREAM, 1, announcement.offset)]
    (part,) = connected.aggregator.model(announcement)
    second = connected.feed(part)
    (train,) = only(second, Train)
    assert connected.models.make(train.legs).tolist() == MODEL.tolist()
    assert Cancel(STREAM) in second
    third = connected.trained(announcement)
    assert not [one for one in (*first, *second) if one == Ack(delivery)]
    assert third.index(only(third, Store)[0]) < third.index(Ack(delivery))
    assert connected.outbox.last_base() == 0


def test_a_version_is_trained_from_once(connected: Site) -> None:
    connected.train_from(connected.aggregator.announce(0))
    _, delivery, effects = announce(connected, 0)
    assert (only(effects, Consume), only(effects, Ack)) == ([], [Ack(delivery)])
    connected.boot()
    connected.up()
    _, delivery, effects = announce(connected, 0)
    assert (only(effects, Consume), only(effects, Ack)) == ([], [Ack(delivery)])


def test_a_crash_before_the_store_trains_again_and_after_it_does_not(connected: Site) -> None:
    announcement, _ = training(connected, 0)
    connected.boot()
    connected.up()
    training(connected, 0)
    stored(connected.outbox, made(1, base=announcement.version))  # killed between store and ack
    connected.boot()
    connected.up()
    assert only(announce(connected, 0)[2], Ack)


def test_a_newer_announcement_during_training_waits_its_turn(connected: Site) -> None:
    first, _ = training(connected, 0)
    connected.feed(Down("cut"))  # the first goes back, and the broker drops it for the newer
    connected.up()
    second, delivery, effects = announce(connected, 1)
    assert (only(effects, Consume), only(effects, Ack)) == ([], [])
    effects = connected.trained(first)
    assert only(effects, Consume) == [Consume(STREAM, 1, second.offset)]
    assert only(effects, Ack) == []
    connected.feed(*connected.aggregator.model(second))
    assert Ack(delivery) in connected.trained(second)
    assert connected.outbox.last_base() == 1


def test_a_cut_while_training_does_not_train_twice(connected: Site) -> None:
    announcement, delivery = training(connected, 0)
    connected.feed(Down("cut"))
    connected.up()
    again = replace(delivery, tag="new", redelivered=True)
    assert only(connected.feed(again), Consume) == []
    effects = connected.trained(announcement)
    assert (len(only(effects, Store)), only(effects, Ack), only(effects, Consume)) == (1, [Ack(again)], [])


def test_what_was_trained_while_disconnected_is_stored(connected: Site) -> None:
    announcement, delivery = training(connected, 0)
    connected.feed(Down("cut"))
    assert len(only(connected.trained(announcement), Store)) == 1
    connected.up()
    assert only(connected.feed(delivery), Ack) == [Ack(delivery)]


def test_the_newest_version_seen_is_kept_before_anything_is_fetched(connected: Site) -> None:
    announcement, _, effects = announce(connected, 4)
    assert effects[0] == NoteSeen(4, announcement.model_digest)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 1}, "rolls back to version 1; version 2 was announced"),
        ({"model_digest": bytes(32)}, "two models for version 2"),
        ({"version": 3, "task": "other"}, "task 'other', this site runs 'sepsis'"),
        ({"version": 3, "layout_digest": bytes(32)}, "another layout than this site's task"),
    ],
)
def test_an_announcement_that_must_not_be_followed_is_refused_also_after_a_restart(
    connected: Site, changes: dict[str, Any], reason: str
) -> None:
    connected.train_from(connected.aggregator.announce(2))
    connected.boot()
    connected.up()
    refused = connected.aggregator.announced(connected.aggregator.announce(**{"version": 2, **changes}))
    effects = connected.feed(refused)
    assert (only(effects, Consume), only(effects, Ack), only(effects, NoteSeen)) == ([], [Ack(refused)], [])
    assert reason in connected.detail()
    assert connected.outbox.seen()[0] == 2


def test_a_forged_announcement_and_one_for_another_site_are_refused(connected: Site) -> None:
    forger = Aggregator(Party("fed", "aggregator", PrivateKey.generate()))
    announcement = connected.aggregator.announce(0)
    for delivery in (forger.announced(announcement), connected.aggregator.announced(announcement, to="B")):
        assert (only(effects := connected.feed(delivery), Consume), Ack(delivery) in effects) == ([], True)
    assert len(only(announce(connected, 0)[2], Consume)) == 1


def test_when_the_federation_has_finished_nothing_is_trained(connected: Site) -> None:
    _, delivery, effects = announce(connected, 5, training=False)
    assert (only(effects, Consume), only(effects, Ack)) == ([], [Ack(delivery)])
    assert connected.detail() == "the federation has finished"


def test_training_that_fails_is_tried_again_ever_later(connected: Site) -> None:
    waits = []
    for _ in range(3):
        _, delivery = training(connected, 0)
        effects = connected.feed(TrainingFailed("No rows."))
        assert (Ack(delivery) in effects, connected.detail()) == (False, "No rows.")
        due = connected.loop._retry_at
        assert due is not None
        waits.append(due - connected.now)
        connected.now = due - 0.5
        assert only(connected.feed(Tick()), Consume) == []
        connected.now = due
        assert Consume("fq.fed.A.rounds", 1) in connected.feed(Tick())  # gives the held announcement back
    assert waits == [RETRY_S, 2 * RETRY_S, 4 * RETRY_S]


def test_a_model_that_was_evicted_is_asked_for(connected: Site) -> None:
    announcement, delivery, _ = announce(connected, 0)
    (part,) = connected.aggregator.model(announcement)
    effects = connected.feed(replace(part, offset=announcement.offset + 9))
    assert [one.evicted for one in connected.hellos(effects)] == [True]
    assert [one for one in effects if one in (Cancel(STREAM), Ack(delivery))] == [Cancel(STREAM), Ack(delivery)]
    assert training(connected, 0)  # the answer announces it again, at another offset


def test_a_stream_that_goes_silent_counts_as_evicted(connected: Site) -> None:
    announce(connected, 0)
    connected.now += STALLED_S
    assert [one.evicted for one in connected.hellos(connected.feed(Tick()))] == [True]


def test_a_stream_that_is_gone_counts_as_evicted(connected: Site) -> None:
    announce(connected, 0)
    effects = connected.feed(Cancelled(STREAM, "It was deleted."))
    assert [one.evicted for one in connected.hellos(effects)] == [True]
    assert connected.hellos(connected.feed(Cancelled(STREAM, "It was deleted."))) == []  # nothing is being fetched


def test_after_a_restart_a_model_is_fetched_from_the_part_that_is_missing(connected: Site) -> None:
    announcement, _, effects = announce(connected, 0)
    connected.boot()
    connected.up()
    assert only(announce(connected, 0)[2], Consume) == only(effects, Consume) == [Consume(STREAM, 1, 100)]
    (part,) = connected.aggregator.model(announcement)
    (kept,) = only(connected.feed(part), KeepModelPart)
    connected.boot()
    connected.up()
    (train,) = only(announce(connected, 0)[2], Train)
    assert train.legs == (kept.leg,)


def test_a_model_that_is_held_is_not_fetched(connected: Site) -> None:
    announcement, _ = training(connected, 0)
    connected.models.make(legs_to(announcement, None))
    connected.boot()
    connected.up()
    (train,) = only(announce(connected, 0)[2], Train)
    assert train.legs == ()


def test_parts_that_come_when_nothing_is_fetched_end_the_reader(connected: Site) -> None:
    (part,) = connected.aggregator.model(connected.aggregator.announce(0))
    assert connected.feed(part) == [Cancel(STREAM)]


def test_ever_so_many_failures_wait_ten_minutes_each(connected: Site) -> None:
    for _ in range(1_100):
        connected.feed(TrainingFailed("no such file"))
    deadline = connected.loop.deadline()
    assert deadline is not None
    assert deadline <= connected.now + 600.0


def test_a_refusal_that_is_learnt_after_a_restart_lets_the_version_be_trained_from_again(connected: Site) -> None:
    announcement = connected.aggregator.announce(3)
    connected.train_from(announcement)
    connected.boot()
    connected.up()
    connected.feed(connected.aggregator.receipt(connected.outbox.incarnation, 1, refused=[(1, "too many examples")]))
    effects = connected.feed(connected.aggregator.announced(announcement))
    assert [one.announcement for one in only(effects, Train)] == [announcement]


def test_a_retry_says_hello_so_that_a_missing_queue_shows_and_a_lost_announcement_comes_again(connected: Site) -> None:
    connected.feed(Cancelled("fq.fed.A.receipts", "The queue fq.fed.A.receipts was deleted."))
    assert connected.hellos(connected.feed(Tick())) == []
    connected.now += RETRY_S
    assert len(connected.hellos(connected.feed(Tick()))) == 1
