"""Designs that are nearly right, each with one mistake that a schedule must find: one piece of the product replaced.

`MUTANTS` has them by name; tests/federation/test_faults.py and `make faults MUTANT=name` run schedules against them.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final

from aggregator.effects import Move, Work
from aggregator.fold import Fold, Step
from aggregator.journal import Accepted, Journal
from aggregator.journal_tables import SCHEMA
from aggregator.opening import reopen
from aggregator.settings import Aggregation, Folder
from broker.drive import perform_on
from broker.weights import Layout, load_model, read_metadata
from site_worker.draft import Residual
from site_worker.effects import Mark
from site_worker.loop import SiteLoop
from site_worker.outbox import Settled
from tests.federation.actors import Sound
from tests.federation.disk import SimJournal, SimOutbox
from tests.federation.fused import FusedAggregator, FusedSite, FusedWorkshop


class AckBeforeCommit(Sound):
    """Tells the broker and the sites first, and the disk afterwards."""

    class aggregator(FusedAggregator):  # noqa: N801 - named as the piece that it replaces
        def stage(self, effects: Sequence[Any]) -> None:
            self._staged += effects

        def flush(self) -> None:
            staged, self._staged = self._staged, []
            stores = [one for one in staged if type(one).__module__ != "broker.drive"]
            for effect in staged:
                if effect not in stores:
                    perform_on(self._link, effect)
            super().stage(stores)
            super().flush()


class NoDedupe(Sound):
    """Does not know after a restart what was settled before, and minds no second row."""

    class journal(SimJournal):  # noqa: N801
        schema = SCHEMA.replace(
            ",\n    UNIQUE (site, incarnation, sequence));\nCREATE TABLE refused", ");\nCREATE TABLE refused"
        )

        def settled(self, site: str, incarnation: bytes) -> tuple[list[int], dict[int, str]]:
            return [], {}


class FreedOnConfirm(Sound):
    """Takes the broker's confirm for delivery, and empties the outbox."""

    class site(FusedSite):  # noqa: N801
        def _store(self, effect: Any) -> None:
            super()._store(effect)
            if isinstance(effect, Mark) and effect.published:
                self._outbox.settle([Settled(sequence, "accepted") for sequence in effect.sequences], at=0.0)


class NewestSnapshot(Sound):
    """Takes the newest snapshot on disk for the newest version, and folds nothing."""

    @staticmethod
    def reopen(journal: Journal, folder: Folder, aggregation: Aggregation) -> tuple[Layout, Any]:
        layout, fold = reopen(journal, folder, aggregation)
        files = sorted(folder.models.glob("*.safetensors"))
        known = [(int(found["version"]), path) for path in files if "version" in (found := read_metadata(path))]
        fold.model[:] = load_model(max(known)[1])[1]
        return layout, fold


class DecidesAhead(Sound):
    """Decides on a version before the one before it is made."""

    @staticmethod
    def reopen(journal: Journal, folder: Folder, aggregation: Aggregation) -> tuple[Layout, Any]:
        layout, fold = reopen(journal, folder, aggregation)
        return layout, Hasty(**{one.name: getattr(fold, one.name) for one in fields(fold)})


class Hasty(Fold):
    def decide(self) -> Step:
        step = super().decide()
        self.moving = False
        return step


class EncodesOnTheMove(Sound):
    """Does not wait with a publication until the model stands still."""

    class workshop(FusedWorkshop):  # noqa: N801
        def take(self, work: Work) -> None:
            super().take(work)
            if isinstance(work, Move):
                self._waiting.rotate(1)


class SequenceReset(Sound):
    """Counts its updates from the beginning after a restart once everything is settled."""

    class outbox(SimOutbox):  # noqa: N801
        def last_sequence(self) -> int:
            return max(self.waiting(), default=0)


class ResidualAhead(Sound):
    """Takes the next residual for true as soon as it is written, before the update that it follows from."""

    class outbox(SimOutbox):  # noqa: N801
        def residual(self, size: int) -> Residual:
            (newest,) = self._rows("SELECT coalesce(max(sequence), 0) FROM residual")[0]
            return self._residual_of(newest, size)

        def _delete(self, *steps: str) -> None:
            super()._delete(*(step for step in steps if "residual" not in step))


class NoProbe(Sound):
    """Never asks what became of an update that the broker has confirmed."""

    class site_loop(SiteLoop):  # noqa: N801
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options | {"probe_s": 1e9})


class StopsAtTheThird(Sound):
    """Cannot journal a third update."""

    class journal(SimJournal):  # noqa: N801
        def accept(self, row: Accepted) -> None:
            if row.ordinal > 2:
                raise ValueError("there are only two")
            super().accept(row)


MUTANTS: Final[dict[str, type[Sound]]] = {
    "ack-before-commit": AckBeforeCommit,
    "no-dedupe": NoDedupe,
    "freed-on-confirm": FreedOnConfirm,
    "newest-snapshot": NewestSnapshot,
    "decides-ahead": DecidesAhead,
    "encodes-on-the-move": EncodesOnTheMove,
    "sequence-reset": SequenceReset,
    "residual-ahead": ResidualAhead,
    "no-probe": NoProbe,
    "stops-at-the-third": StopsAtTheThird,
}
