"""Promises that need a whole federation but no faults, on the production loops over the in-memory link."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from aggregator.settings import Aggregation
from broker.link import Delivery
from broker.topology import SiteNames
from site_worker.effects import Trained
from tests.federation.actors import FEDERATION
from tests.federation.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, 1, versions=60)
    yield world
    world.close()


def made_by(world: World) -> int:
    """Updates made by all sites."""
    return sum(site.outbox.last_sequence() for site in world.sites if site.outbox is not None)


def test_a_site_absent_for_fifty_versions_finds_one_announcement_and_its_late_update_counts(world: World) -> None:
    discounting = Aggregation(strategy="fedbuff", buffer_size=2, max_wait_s=20.0)  # by (1 + tau) ^ -1/2
    world.settings = msgspec.structs.replace(world.settings, aggregation=discounting)
    for actor in world.actors:
        actor.start()
    absent = world.sites[0]
    assert absent.outbox is not None
    world.run_until(lambda: world.version() >= 3 and any(isinstance(event, Trained) for event in absent.events))
    assert absent.link is not None
    world.broker.disconnect(absent.link)
    while absent.events:
        absent.step()
    based_on = absent.outbox.last_base()
    absent.crash()  # cut off when it stored the update, and then gone: the update is in its outbox alone
    world.run_until(lambda: world.version() >= based_on + 50 and not world.making(), start_dead=False)
    assert world.broker.depth(SiteNames(FEDERATION, absent.name).rounds) == 1
    newest = world.version()
    absent.start()
    world.run_until(lambda: absent.name in world.merged_since(newest))
    staleness, weight = world.merged_since(newest)[absent.name]
    assert staleness >= 50
    assert weight == (1 + staleness) ** -0.5
    bases = "SELECT DISTINCT base_version FROM updates WHERE site = ? AND base_version BETWEEN ? AND ?"
    # The newest may still be on its way into the stream, so the one that waited is at most one older.
    outbox = absent.outbox
    world.run_until(lambda: outbox.last_base() >= newest - 1)
    between = (absent.name, based_on + 1, newest - 2)
    assert world.journal.query(bases, *between) == []


def test_every_message_delivered_ten_times_changes_nothing(world: World) -> None:
    for actor in world.actors:
        actor.start()
    updates = {SiteNames(FEDERATION, name).updates for name in world.names}
    original, seen = world.aggregator.events, list[Delivery]()

    def copies() -> None:
        for event in list(original):
            if isinstance(event, Delivery) and event.queue in updates and event not in seen:
                seen.append(event)
                original.extend([event] * 9)

    world.run_until(lambda: world.version() >= 8, each_step=copies)
    assert len(seen) > 16
    world.settle_as_is()
    ledger = world.ledger()
    assert ledger.balanced, ledger.line
    assert ledger.accepted == ledger.sent
    assert world.replays()


def test_two_present_sites_of_three_are_enough(world: World) -> None:
    world.aggregator.start()
    for site in world.sites:
        site.start()
    world.run_until(lambda: world.version() >= 2)
    for site in world.sites[1:]:
        site.crash()
    before = world.version()
    world.run_until(lambda: world.version() >= before + 5, start_dead=False)
    reasons = {row.reason for row in world.journal.versions()[-3:]}
    assert reasons == {"every present site has contributed"}


def test_an_aggregator_that_was_away_goes_on_where_it_was(world: World) -> None:
    for actor in world.actors:
        actor.start()
    world.run_until(lambda: world.version() >= 4)
    world.aggregator.crash()
    for _ in range(50):
        world.one_step(start_dead=False)
    made = made_by(world)
    world.aggregator.start()
    world.run_until(lambda: world.version() >= 10)
    assert made_by(world) > made
    assert world.replays()


def test_a_lone_site_whose_announcement_was_purged_while_it_paused_goes_on_by_itself(tmp_path: Path) -> None:
    world = World(tmp_path, 1, sites=1, versions=60, in_memory=True)
    for actor in world.actors:
        actor.start()
    (site,) = world.sites
    world.run_until(lambda: world.version() >= 2)
    site.pause(paused=True)
    world.run_until(lambda: world.broker.depth(SiteNames(FEDERATION, site.name).rounds) == 1)
    world.broker.purge(SiteNames(FEDERATION, site.name).rounds)
    before = world.version()
    site.pause(paused=False)
    world.run_until(lambda: world.version() >= before + 2)
    assert world.replays()
    world.close()


def test_a_lone_site_whose_receipts_queue_was_deleted_goes_on_by_itself(tmp_path: Path) -> None:
    world = World(tmp_path, 1, sites=1, versions=60, in_memory=True, training_s=5)
    for actor in world.actors:
        actor.start()
    world.run_until(lambda: world.sites[0].training is not None)
    world.broker.delete_queue(SiteNames(FEDERATION, world.sites[0].name).receipts)
    world.run_until(lambda: world.version() >= 3)
    assert world.replays()
    world.close()


def test_a_deleted_topology_is_declared_again(world: World) -> None:
    for actor in world.actors:
        actor.start()
    world.run_until(lambda: world.version() >= 2)
    for topology in world.topologies():
        for queue in topology.queues:
            world.broker.delete_queue(queue.name)
    before = world.version()
    world.run_until(lambda: world.version() >= before + 3)
    assert world.replays()
