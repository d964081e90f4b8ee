"""Making a federation's journal, and bringing its model back from disk: by the newest snapshot, or by folding all.

The model of version v is determined by version 0 and the journal alone. A snapshot only spares the time to fold, and is
written now and then; if it is missing or damaged, an older one is folded forward, and every version passed on the way
must have its digest. What was decided on and not made yet when a process ended is made likewise.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from aggregator.fold import Fold
from aggregator.journal import Folded, Journal, RuleRow, VersionRow
from aggregator.memory import Contribution, Remembered, recalled, remember
from aggregator.settings import Aggregation, Folder
from aggregator.sources import Sources
from aggregator.state import load_state
from aggregator.strategies import Direction, Situation, Strategy
from broker.errors import StorageError, UsageError
from broker.weights import Layout, Vector, load_model, model_digest, save_model

BASES_KEPT, SNAPSHOTS_KEPT = 50, 5


def rule_text(aggregation: Aggregation) -> str:
    """The aggregation as JSON, kept with each version that it made."""
    return msgspec.json.encode(aggregation).decode()


def rule_in(text: str) -> Aggregation:
    """The aggregation in a journal's JSON, as it was meant by the release that wrote it."""
    return msgspec.convert({"one_place": False} | msgspec.json.decode(text), type=Aggregation)


def rule_of(row: VersionRow | RuleRow) -> Aggregation:
    """The aggregation that made a version, or that was decided on."""
    return rule_in(row.rule)


def initialise(journal: Journal, folder: Folder, layout: Layout, model: Vector, rule: str, *, at: float) -> None:
    """Make version 0 of `model`, once; UsageError if the journal has another model or later versions already."""
    digest = model_digest(layout.digest, model)
    if journal.fact("layout") is not None:
        if [row.digest for row in journal.versions()] == [digest] and not journal.last_ordinal():
            return  # an 'init' that was killed before its end
        raise UsageError(f"{folder.path} holds a federation already; choose another folder.")
    save_model(folder.snapshot(digest), layout, model, metadata={"version": "0"})
    journal.begin()
    journal.set_fact("layout", layout.digest)
    journal.add_version(VersionRow(0, digest, 0, 0, "initial model", rule, at))
    journal.add_rule(RuleRow(0, rule, at))
    journal.commit()


def restore(
    journal: Journal, folder: Folder, aggregation: Aggregation, *, at_version: int | None = None
) -> tuple[Layout, Fold]:
    """The fold at the journal's newest version with its open buffer merged, or at an older version."""
    versions = journal.versions()
    if at_version is not None and not 0 <= at_version < len(versions):
        raise UsageError(f"There is no version {at_version}; choose 0 to {len(versions) - 1}.")
    if at_version is not None and 0 < at_version < journal.anchor():
        raise UsageError(
            f"Versions before {journal.anchor()} can no longer be made: the updates of which they consist were removed "
            f"to make room. Choose version {journal.anchor()} to {len(versions) - 1}, or 0."
        )
    if at_version is not None:
        versions = versions[: at_version + 1]
    if not versions:
        raise UsageError(f"{folder.path} holds no federation; run 'fedqueue aggregator init' first.")
    layout, fold, position = _newest_snapshot(journal, folder, versions)
    for row, _ in _folding(journal, fold, versions[position:]):
        if row.digest not in (b"", fold.digest):
            raise StorageError(
                f"Folding the journal does not give version {row.version}; restore the folder from a backup."
            )
    fold.strategy = aggregation.build()
    if at_version is None:
        for update in journal.folded(after=versions[-1].through_ordinal):
            fold.add(_contribution(update))
    return layout, fold


def reopen(journal: Journal, folder: Folder, aggregation: Aggregation) -> tuple[Layout, Fold]:
    """`restore` for the process that owns the journal: a version that was being made is made, and journaled."""
    layout, fold = restore(journal, folder, aggregation)
    if not journal.versions()[-1].digest:
        journal.begin()
        journal.note_made(fold.made, fold.digest)
        journal.commit()
    return layout, fold


@dataclass(frozen=True)
class Replayed:
    """One version as folded again: its row, and whether the fold gave what is journaled of it."""

    row: VersionRow
    members: tuple[tuple[str, int, int], ...]
    same: bool


def replay(journal: Journal, folder: Folder) -> Iterator[Replayed]:
    """Fold everything again, yielding every version with its (site, sequence, staleness) members.

    From version 0, or from the anchor where payloads before it were removed (aggregator/storage.py).
    """
    versions = journal.versions()
    if not versions:
        raise UsageError(f"{folder.path} holds no federation; run 'fedqueue aggregator init' first.")
    first, versions = versions[journal.anchor()], versions[journal.anchor() :]
    if first.version:
        _, fold = restore(journal, folder, Aggregation(), at_version=first.version)
    else:
        fold = _fold_at(journal, folder, *load_model(folder.snapshot(first.digest)), first)
    yield Replayed(first, (), (fold.digest, fold.state.digest) == (first.digest, first.state))
    for row, updates in _folding(journal, fold, versions):
        members = tuple((one.site, one.sequence, one.staleness) for one in updates)
        same = row.digest in (b"", fold.digest) and (row.state is None or row.state == fold.state.digest)
        yield Replayed(row, members, same)


def directions(journal: Journal, versions: list[VersionRow]) -> Iterator[tuple[Strategy, Situation, Direction]]:
    """The coefficients of every version after the first of `versions`, which is 0; no vector is touched."""
    memory: dict[str, Remembered] = {}
    used: Mapping[str, float] = {}
    for before, row in pairwise(versions):
        strategy, former = rule_of(row).build(), memory
        updates = _between(journal, before, row)
        buffer = tuple(map(_contribution, updates))
        memory = remember(former, buffer, version=row.version)
        situation = Situation(row.version, buffer, memory, former, used)
        direction = strategy.direct(situation, strategy.worth)
        used = direction.used
        yield strategy, situation, direction


def prune_snapshots(journal: Journal, folder: Folder, *, keep: int = SNAPSHOTS_KEPT) -> None:
    """Keep version 0, the anchor and the newest snapshots that there are: everything else follows from the journal."""
    versions, files = journal.versions(), set(folder.models.glob("*.safetensors"))
    kept = [versions[0], versions[journal.anchor()], *snapshots(journal, folder)[-keep:]]
    wanted = {folder.snapshot(row.digest) for row in kept}
    wanted |= {folder.state(row.state) for row in kept if row.state is not None}
    for path in files - wanted:
        with suppress(OSError):  # a file that stays costs room only
            path.unlink()


def snapshots(journal: Journal, folder: Folder) -> list[VersionRow]:
    """The versions that have a snapshot with all that belongs to it, oldest first."""
    return [row for row in journal.versions() if _may_be_begun_from(row) and folder.snapshot(row.digest).is_file()]


def _may_be_begun_from(row: VersionRow) -> bool:
    """Whether a snapshot of this version would do: not without what its strategy keeps."""
    return bool(row.digest) and (row.version == 0 or row.state is not None or not rule_of(row).build().keeps)


def sources_in(journal: Journal, folder: Folder, layout: Layout) -> Sources:
    """What a fold fetches from: the journal, and snapshots; `journal` may be another connection than its owner's."""

    def older(version: int) -> Vector:
        return restore(journal, folder, Aggregation(), at_version=version)[1].model

    return Sources(journal, form=layout.form, older=older)


def _newest_snapshot(journal: Journal, folder: Folder, versions: list[VersionRow]) -> tuple[Layout, Fold, int]:
    for position in range(len(versions) - 1, -1, -1):
        row = versions[position]
        if not _may_be_begun_from(row):
            continue
        try:
            layout, model = load_model(folder.snapshot(row.digest))
            state = load_state(folder.state(row.state or b""), row.state)
        except (UsageError, StorageError):
            continue
        fold = _fold_at(journal, folder, layout, model, row)
        if fold.digest == row.digest:
            fold.state, fold.saved = state, row.version
            fold.memory = recalled(journal.merged_by_site(through=row.through_ordinal))
            return layout, fold, position
    raise StorageError(
        f"No snapshot in {folder.models} is whole; restore {folder.snapshot(versions[0].digest).name} from a backup."
    )


def _fold_at(journal: Journal, folder: Folder, layout: Layout, model: Vector, row: VersionRow) -> Fold:
    """A fold at a version."""
    fetch = sources_in(journal, folder, layout)
    return Fold.at(rule_of(row).build(), layout.digest, model, row.version, fetch, form=layout.form)


def _folding(journal: Journal, fold: Fold, versions: list[VersionRow]) -> Iterator[tuple[VersionRow, list[Folded]]]:
    """Fold from the first of `versions`, at which `fold` stands, to the last; each with its updates when it is made.

    Models that later updates were trained from are kept on the way where a strategy needs them: without their snapshots
    each would otherwise be folded anew.
    """
    last_use: dict[int, int] = {}
    for before, row in pairwise(versions):
        if rule_of(row).build().bases:
            last_use |= {update.base_version: row.version for update in _between(journal, before, row)}
    for before, row in pairwise(versions):
        if fold.version in last_use:
            fold.fetch.models[fold.version] = fold.model.copy()
        updates = _between(journal, before, row)
        fold.strategy = rule_of(row).build()
        for update in updates:
            fold.add(_contribution(update))
        fold.step()
        for version in [one for one in fold.fetch.models if last_use[one] <= row.version]:
            del fold.fetch.models[version]
        yield row, updates


def _between(journal: Journal, before: VersionRow, row: VersionRow) -> list[Folded]:
    return journal.folded(after=before.through_ordinal, through=row.through_ordinal)


def _contribution(update: Folded) -> Contribution:
    return Contribution(update.site, update.ordinal, update.staleness, update.examples, update.base_version)
