"""Step budgets over the in-memory link: what a slow site is announced is what it trains, through kills and faults."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from aggregator.settings import Plan
from tests.federation.faults import strike
from tests.federation.world import World

SPEEDS = {"S0": 10.0, "S1": 10.0, "S2": 1.0}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, 3, versions=12)
    for site in world.sites:
        site.speed = SPEEDS[site.name]
    yield world
    world.close()


def asked_for_equal_time(world: World) -> None:
    world.settings = msgspec.structs.replace(world.settings, plan=Plan(equal_time=True))


def trained(world: World) -> dict[str, list[int]]:
    """The steps of each site's updates, in order."""
    assert world.aggregator.journal is not None
    rows = world.aggregator.journal.query("SELECT site, steps FROM updates ORDER BY ordinal")
    return {name: [row["steps"] for row in rows if row["site"] == name] for name in world.names}


def test_slow_sites_train_fewer_steps_once_their_speed_is_known(world: World) -> None:
    asked_for_equal_time(world)
    for actor in world.actors:
        actor.start()
    world.settle()
    steps = trained(world)
    assert {*steps["S0"], *steps["S1"]} == {50}
    assert steps["S2"][0] == 50
    assert set(steps["S2"][2:]) == {5}  # a version with its first update in it may be on its way during the second


def test_without_the_setting_all_train_the_same(world: World) -> None:
    for actor in world.actors:
        actor.start()
    world.settle()
    assert {number for numbers in trained(world).values() for number in numbers} == {50}


@pytest.mark.parametrize("seed", range(8))
def test_with_budgets_too_every_update_counts_once_whatever_fails(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path, seed, versions=8)
    asked_for_equal_time(world)
    for site in world.sites:
        site.speed = SPEEDS[site.name]
    try:
        for actor in world.actors:
            actor.start()
        for _ in range(1_500):
            if world.random.random() < 0.05:
                strike(world)
            world.one_step()
        world.settle()
        ledger = world.ledger()
        assert world.faults.total() > 20
        assert ledger.balanced, ledger.line
        assert world.replays()
        assert {*trained(world)["S2"]} <= {50, 5}
    finally:
        world.close()
