"""A worker that may not train now: it halts, leaves its rounds queue, keeps delivering, and finishes what it began."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.drive import Ack, Cancel, Consume, Publish, Tick
from broker.link import Delivery, Up
from broker.messages import Announcement
from broker.plan import PAUSED
from site_worker.availability import Availability, Window
from site_worker.effects import Halt, Halted, Paused, SendPart, Store, Train
from tests.site_worker.bench import Site, only

ROUNDS, RECEIPTS, STREAM = "fq.fed.A.rounds", "fq.fed.A.receipts", "fq.fed.models"
TEN, NOON = 36_000.0, 43_200.0  # seconds after midnight UTC of the first day


@pytest.fixture
def connected(site: Site) -> Site:
    site.up()
    return site


def announce(site: Site, version: int) -> tuple[Announcement, Delivery, list[Any]]:
    announcement = site.aggregator.announce(version)
    delivery = site.aggregator.announced(announcement)
    return announcement, delivery, site.feed(delivery)


def train(site: Site, version: int) -> tuple[Announcement, Delivery]:
    announcement, delivery, _ = announce(site, version)
    (part,) = site.aggregator.model(announcement)
    assert only(site.feed(part), Train)
    return announcement, delivery


def tick(site: Site) -> list[Any]:
    return site.feed(Tick())


def pause(site: Site, *, paused: bool = True) -> list[Any]:
    return site.feed(Paused(paused)) + tick(site)


def test_pausing_halts_the_training_and_leaves_the_rounds_queue_but_not_the_receipts(connected: Site) -> None:
    train(connected, 3)
    effects = pause(connected)
    assert [one for one in effects if isinstance(one, Halt | Cancel)] == [Halt(), Cancel(ROUNDS)]
    assert connected.state() == ("training", 3, "paused at this hospital")
    kept = connected.aggregator.announce(3)
    connected.feed(Halted(kept))
    assert connected.state() == ("resting", None, "paused at this hospital")


def test_resuming_finishes_the_halted_round_before_a_newer_one(connected: Site) -> None:
    announcement, _ = train(connected, 3)
    pause(connected)
    connected.feed(Halted(announcement))
    resumed = pause(connected, paused=False)
    assert only(resumed, Train) == [Train(announcement, None)]
    assert only(resumed, Consume) == [Consume(ROUNDS, 1), Consume(RECEIPTS, 1)]
    _, newer, effects = announce(connected, 7)
    assert (only(effects, Consume), only(effects, Ack)) == ([], [])
    done = connected.trained(announcement)
    assert only(done, Store)[0].made.base_version == 3
    assert only(done, Consume) == [Consume(STREAM, 1, 107)]
    assert Ack(newer) not in done


def test_resuming_before_the_training_has_halted_loses_nothing(connected: Site) -> None:
    announcement, _ = train(connected, 3)
    pause(connected)
    assert only(pause(connected, paused=False), Train) == []
    assert only(connected.feed(Halted(announcement)) + tick(connected), Train) == [Train(announcement, None)]


def test_a_newer_version_that_came_meanwhile_does_not_take_the_halted_rounds_place(connected: Site) -> None:
    announcement, _ = train(connected, 3)
    pause(connected)
    pause(connected, paused=False)
    announce(connected, 7)
    halted = connected.feed(Halted(announcement))
    assert only(halted, Consume) == []
    assert only(tick(connected), Train) == [Train(announcement, None)]


def test_a_round_that_ended_just_when_it_was_halted_counts(connected: Site) -> None:
    announcement, _ = train(connected, 3)
    pause(connected)
    assert only(connected.trained(announcement), Store)
    assert only(tick(connected), Train) == []
    assert connected.outbox.last_base() == 3


def test_a_halted_round_of_which_nothing_was_kept_begins_anew_with_its_announcement(connected: Site) -> None:
    train(connected, 3)
    pause(connected)
    connected.feed(Halted(None))
    assert only(pause(connected, paused=False), Train) == []
    _, _, effects = announce(connected, 3)
    assert [one.announcement.version for one in only(effects, Train)] == [3]


def test_what_was_being_fetched_is_left(connected: Site) -> None:
    announcement, _, effects = announce(connected, 3)
    assert only(effects, Consume)
    assert [one for one in pause(connected) if isinstance(one, Cancel)] == [Cancel(STREAM), Cancel(ROUNDS)]
    (part,) = connected.aggregator.model(announcement)
    assert only(connected.feed(part), Train) == []


def test_while_resting_updates_are_still_delivered(connected: Site) -> None:
    announcement, _ = train(connected, 3)
    pause(connected)
    assert only(connected.trained(announcement), SendPart) == [SendPart(1, 0, 0)]


def test_a_connection_made_while_resting_asks_for_no_rounds(site: Site) -> None:
    site.availability.paused = True
    tick(site)
    effects = site.feed(Up())
    assert only(effects, Consume) == [Consume(RECEIPTS, 1)]
    assert only(effects, Publish)  # but it says hello


def test_an_announcement_that_was_on_its_way_when_the_rest_began_starts_nothing(connected: Site) -> None:
    pause(connected)
    _, delivery, effects = announce(connected, 3)
    assert (only(effects, Consume), only(effects, Ack)) == ([], [])
    assert only(pause(connected, paused=False), Consume)
    assert delivery not in [one.delivery for one in only(tick(connected), Ack)]


def test_a_round_kept_on_disk_goes_on_at_the_start_without_the_broker(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.unfinished = site.aggregator.announce(3)
    site.boot()
    assert only(tick(site), Train) == [Train(site.unfinished, None)]
    assert only(site.trained(site.unfinished), Store)
    site.outbox.close()


def test_a_kept_round_whose_update_is_stored_is_not_trained_again(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.up()
    announcement = site.aggregator.announce(3)
    site.train_from(announcement)
    site.unfinished = announcement  # killed after the update was stored and before the round was forgotten
    site.boot()
    assert only(tick(site), Train) == []
    site.outbox.close()


def test_windows_begin_and_end_the_rest(tmp_path: Path) -> None:
    site = Site(tmp_path, availability=Availability([Window.parse("10:00-12:00 UTC")]), now=TEN - 60)
    tick(site)
    assert site.state()[0] == "resting"
    assert only(site.feed(Up()), Consume) == [Consume(RECEIPTS, 1)]
    assert site.loop.deadline() == TEN
    site.now = TEN
    assert only(tick(site), Consume) == [Consume(ROUNDS, 1), Consume(RECEIPTS, 1)]
    announcement, _ = train(site, 0)
    site.now = NOON
    assert only(tick(site), Halt) == [Halt()]
    site.feed(Halted(announcement))
    site.now = TEN + 86_400
    assert only(tick(site), Train) == [Train(announcement, None)]
    site.outbox.close()


def test_the_daily_limit_counts_over_a_restart(tmp_path: Path) -> None:
    site = Site(tmp_path, availability=Availability([Window.parse("00:00-23:59 UTC")], max_updates_per_day=2), now=TEN)
    site.up()
    for version in (0, 1):
        assert site.state()[0] != "resting"
        site.train_from(site.aggregator.announce(version))
        tick(site)
    assert site.state()[0] == "resting"
    made = site.outbox.newest_times(2)
    site.availability = Availability([Window.parse("00:00-23:59 UTC")], max_updates_per_day=2, made=made)
    site.boot()
    tick(site)
    assert site.state()[0] == "resting"
    site.now = 86_400.0
    tick(site)
    assert site.state()[0] == "waiting"  # for the connection
    site.outbox.close()


def test_a_paused_federation_and_a_finished_one_are_told_apart(connected: Site) -> None:
    plain = connected.aggregator.announce(0, training=False, plan=[])
    connected.feed(connected.aggregator.announced(plain))
    assert connected.detail() == "the federation has finished"
    paused = msgspec.structs.replace(plain, plan=[(PAUSED, 1.0)])
    connected.feed(connected.aggregator.announced(paused))
    assert connected.detail() == "the federation is paused"
