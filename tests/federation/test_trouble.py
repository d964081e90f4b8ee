"""Trouble that is nobody's crash: disks that fill twice, updates all refused, an outbox restored from a copy."""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aggregator.journal import Accepted
from aggregator.settings import Limits
from broker.errors import StorageError
from broker.weights import save_model
from tests.federation.actors import Sound
from tests.federation.disk import Disk, SimJournal
from tests.federation.fuse import Fuse
from tests.federation.world import World


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Any]:
    made: list[World] = []

    def make(**options: Any) -> World:
        made.append(World(tmp_path / str(len(made)), 1, **options))
        for actor in made[-1].actors:
            actor.start()
        return made[-1]

    yield make
    for world in made:
        world.close()


class Flapping(SimJournal):
    """Has no room for an update the first time it is asked to keep it."""

    def __init__(self, path: Path, disk: Disk, fuse: Fuse) -> None:
        super().__init__(path, disk, fuse)
        self._seen: set[int] = set()

    def accept(self, row: Accepted) -> None:
        if row.ordinal not in self._seen:
            self._seen.add(row.ordinal)
            raise StorageError("full")
        super().accept(row)


class FlappingProduct(Sound):
    journal = Flapping


def test_a_disk_that_fills_twice_in_one_batch_loses_nothing(worlds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set[Path]()

    def flapping(path: Path, *rest: Any, **named: Any) -> None:
        if path not in seen:
            seen.add(path)
            raise StorageError("full")
        save_model(path, *rest, **named)

    monkeypatch.setattr("aggregator.workshop.save_model", flapping)
    world = worlds(sites=2, mutant=FlappingProduct)
    world.settle()
    assert len(seen) >= 6
    assert world.ledger().balanced
    assert world.replays()


def test_when_all_updates_of_a_version_are_refused_it_is_trained_from_again(worlds: Any) -> None:
    world = worlds(sites=2)
    strict = msgspec.structs.replace(world.settings, limits=Limits(max_norm=1e-6))
    lenient, world.settings = world.settings, strict
    world.aggregator.crash()
    world.aggregator.start()
    world.run_until(lambda: world.ledger().refused >= 4)
    assert world.version() == 0
    world.settings = lenient
    world.aggregator.crash()
    world.aggregator.start()
    world.settle()
    assert world.version() >= 6
    assert world.ledger().balanced


def test_a_restored_outbox_believes_nothing_that_is_said_of_its_old_numbers(worlds: Any) -> None:
    world = worlds(sites=2, versions=30)
    site = world.sites[0]
    world.run_until(lambda: site.outbox is not None and site.outbox.last_sequence() >= 3)
    assert site.outbox is not None
    site.crash()
    copy = world.path / "copy.db"
    shutil.copy(world.outbox(site.name), copy)
    site.start()
    world.run_until(lambda: site.outbox.last_sequence() >= 12)
    site.crash()
    for path in world.path.glob(f"{site.name}.db*"):
        path.unlink()
    shutil.copy(copy, world.outbox(site.name))
    site.start()
    world.run_until(lambda: "older than what the aggregator has" in _detail(world.outbox(site.name)))
    for _ in range(500):
        world.one_step()
    told = "SELECT sequence, payload_digest FROM updates WHERE state = 'accepted'"
    mine = {row["sequence"]: bytes(row["payload_digest"]) for row in site.outbox._database.execute(told)}
    rows = world.journal.query("SELECT sequence, payload_digest FROM updates WHERE site = ?", site.name)
    journaled = {row["sequence"]: bytes(row["payload_digest"]) for row in rows}
    assert mine == {sequence: journaled[sequence] for sequence in mine}
    assert site.outbox.last_sequence() <= 4, "it stops making updates whose numbers are taken"


def _detail(path: Path) -> str:
    database = sqlite3.connect(path)
    try:
        row = database.execute("SELECT detail FROM activity").fetchone()
    finally:
        database.close()
    return row[0] if row else ""
