"""Promise 1 under random faults, and three classic designs that break it and must be caught."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from aggregator.journal import Journal
from broker.drive import perform_on
from site_worker.effects import Mark
from site_worker.outbox import Settled
from tests.federation.actors import FusedAggregator, FusedSite, Sound
from tests.federation.world import World

SCHEDULES = 40
STEPS, FAULT_RATE = 150, 0.15


def outcome(path: Path, seed: int, mutant: Any = Sound) -> str:
    """What is wrong after one schedule, "" if nothing is."""
    world = World(path, seed, mutant=mutant)
    try:
        world.run(STEPS, fault_rate=FAULT_RATE)
        world.settle()
        ledger, replays = world.ledger(), world.replays()
    finally:
        world.close()
    if not ledger.balanced or ledger.waiting:
        return ledger.line
    return "" if replays else "the replay differs"


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_nothing_is_lost_or_counted_twice_whatever_fails(tmp_path: Path, seed: int) -> None:
    assert outcome(tmp_path, seed) == ""


class AckBeforeCommit(FusedAggregator):
    """Tells the broker and the site first, and the disk afterwards."""

    def stage(self, effects: Sequence[Any]) -> None:
        self._staged += effects

    def flush(self) -> None:
        staged, self._staged = self._staged, []
        stores = [effect for effect in staged if hasattr(effect, "row") or type(effect).__module__ != "broker.drive"]
        for effect in staged:
            if effect not in stores:
                perform_on(self._link, effect)
        for effect in stores:
            self._journal.begin()
            self._store(effect)
        self._journal.commit()


class FreedOnConfirm(FusedSite):
    """Takes the broker's confirm for delivery."""

    def _store(self, effect: Any) -> None:
        super()._store(effect)
        if isinstance(effect, Mark) and effect.published:
            self._outbox.settle([Settled(sequence, "accepted") for sequence in effect.sequences], at=0.0)


class Forgetful(Journal):
    """Does not know after a restart what was settled before, and does not mind a second row."""

    def settled(self, site: str, incarnation: bytes) -> tuple[list[int], dict[int, str]]:
        return [], {}


class AckBeforeCommitProduct(Sound):
    aggregator = AckBeforeCommit


class FreedOnConfirmProduct(Sound):
    site = FreedOnConfirm


class ForgetfulProduct(Sound):
    journal = Forgetful


@pytest.mark.parametrize("mutant", [AckBeforeCommitProduct, FreedOnConfirmProduct, ForgetfulProduct])
def test_a_broken_design_is_caught_within_a_hundred_schedules(tmp_path: Path, mutant: Any) -> None:
    for seed in range(100):
        try:
            found = outcome(tmp_path / str(seed), seed, mutant)
        except Exception as error:  # noqa: BLE001 - however a mutant shows itself, it is caught
            found = repr(error)
        if found:
            return
    pytest.fail("No schedule caught it.")
