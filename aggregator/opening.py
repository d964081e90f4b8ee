"""Making a federation's journal, and bringing its model back from disk: by the newest snapshot, or by folding all.

The model of version v is determined by version 0 and the journal alone. A snapshot only spares the time to fold; if it
is missing or damaged, an older one is folded forward, and every version passed on the way must have its digest.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from aggregator.fold import Fold
from aggregator.journal import Folded, Journal, VersionRow
from aggregator.settings import Aggregation, Folder
from aggregator.strategies import Contribution, Vector
from broker.errors import StorageError, UsageError, WireError
from broker.weights import Layout, load_model, save_model


def rule_text(aggregation: Aggregation) -> str:
    """The aggregation as JSON, kept with each version that it made."""
    return msgspec.json.encode(aggregation).decode()


def initialise(journal: Journal, folder: Folder, layout: Layout, model: Vector, rule: str, *, at: float) -> None:
    """Make version 0 of `model`, once; UsageError if the journal has another model or later versions already."""
    fold = Fold.at(Aggregation().build(), layout.digest, model, 0)
    if journal.fact("layout") is not None:
        if [row.digest for row in journal.versions()] == [fold.digest] and not journal.last_ordinal():
            return  # an 'init' that was killed before its end
        raise UsageError(f"{folder.path} holds a federation already; choose another folder.")
    save_model(folder.snapshot(fold.digest), layout, model, metadata={"version": "0"})
    journal.begin()
    journal.set_fact("layout", layout.digest)
    journal.add_version(VersionRow(0, fold.digest, 0, 0, "initial model", rule, at))
    journal.commit()


def restore(
    journal: Journal, folder: Folder, aggregation: Aggregation, *, at_version: int | None = None
) -> tuple[Layout, Fold]:
    """The fold at the journal's newest version with its open buffer merged, or at an older version."""
    versions = journal.versions()
    if at_version is not None and not 0 <= at_version < len(versions):
        raise UsageError(f"There is no version {at_version}; choose 0 to {len(versions) - 1}.")
    if at_version is not None:
        versions = versions[: at_version + 1]
    if not versions:
        raise UsageError(f"{folder.path} holds no federation; run 'fedqueue aggregator init' first.")
    layout, fold, position = _newest_snapshot(folder, versions, aggregation)
    for row in versions[position + 1 :]:
        _advance(
            fold, row, journal.folded(after=versions[row.version - 1].through_ordinal, through=row.through_ordinal)
        )
    fold.strategy = aggregation.build()
    if at_version is None:
        for update in journal.folded(after=versions[-1].through_ordinal):
            _merge(fold, update)
    return layout, fold


@dataclass(frozen=True)
class Replayed:
    """One version as folded again: its row, and whether the fold gave the journaled digest."""

    row: VersionRow
    members: tuple[tuple[str, int, int], ...]
    same: bool


def replay(journal: Journal, folder: Folder) -> Iterator[Replayed]:
    """Fold everything again from version 0, yielding every version with its (site, sequence, staleness) members."""
    versions = journal.versions()
    if not versions:
        raise UsageError(f"{folder.path} holds no federation; run 'fedqueue aggregator init' first.")
    layout, model = load_model(folder.snapshot(versions[0].digest))
    fold = Fold.at(Aggregation().build(), layout.digest, model, 0)
    yield Replayed(versions[0], (), fold.digest == versions[0].digest)
    for before, row in pairwise(versions):
        members: list[tuple[str, int, int]] = []
        fold.strategy = rule_of(row).build()
        for update in journal.folded(after=before.through_ordinal, through=row.through_ordinal):
            members.append((update.site, update.sequence, update.staleness))
            _merge(fold, update)
        fold.step()
        yield Replayed(row, tuple(members), fold.digest == row.digest)


def rule_of(row: VersionRow) -> Aggregation:
    """The aggregation that made a version."""
    return msgspec.json.decode(row.rule, type=Aggregation)


def prune_snapshots(journal: Journal, folder: Folder, *, keep: int = 5) -> None:
    """Keep version 0 and the newest snapshots: everything else follows from the journal."""
    versions = journal.versions()
    wanted = {folder.snapshot(row.digest) for row in [versions[0], *versions[-keep:]]}
    for path in folder.models.glob("*.safetensors"):
        if path not in wanted:
            with suppress(OSError):  # a file that stays costs room only
                path.unlink()


def _newest_snapshot(folder: Folder, versions: list[VersionRow], aggregation: Aggregation) -> tuple[Layout, Fold, int]:
    for position in range(len(versions) - 1, -1, -1):
        row = versions[position]
        try:
            layout, model = load_model(folder.snapshot(row.digest))
        except (UsageError, StorageError):
            continue
        fold = Fold.at(aggregation.build(), layout.digest, model, row.version)
        if fold.digest == row.digest:
            return layout, fold, position
    raise StorageError(
        f"No snapshot in {folder.models} is whole; restore {folder.snapshot(versions[0].digest).name} from a backup."
    )


def _advance(fold: Fold, row: VersionRow, updates: Iterator[Folded]) -> None:
    fold.strategy = rule_of(row).build()
    for update in updates:
        _merge(fold, update)
    fold.step()
    if fold.digest != row.digest:
        raise StorageError(
            f"Folding the journal does not give version {row.version}; restore the folder from a backup."
        )


def _merge(fold: Fold, update: Folded) -> None:
    contribution = Contribution(update.site, update.staleness, update.examples)
    try:
        fold.merge(contribution, update.codec, update.payload)
    except WireError as error:
        raise StorageError(
            f"The journal's update {update.ordinal} is damaged ({error}) Restore the folder from a backup."
        ) from error
