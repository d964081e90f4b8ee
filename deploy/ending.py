"""What a run on this machine left behind: its last model, its ledger, and whether a replay gives the same model."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aggregator.journal import Journal
from aggregator.opening import replay, restore
from broker.statistics import FeatureStatistics
from deploy.history import Ledger
from deploy.ledger import read_books
from deploy.local import LocalFederation


@dataclass(frozen=True)
class Ending:
    """`weights` of the newest `version` by name, and the `statistics` that its sites scale with."""

    version: int
    weights: dict[str, NDArray[np.float32]]
    statistics: FeatureStatistics | None
    ledger: Ledger
    replayed: bool


def read_ending(federation: LocalFederation, sites: Iterable[str]) -> Ending:
    """Fold, replay and count; the ledger is of the outboxes of `sites`."""
    folder = federation.aggregator
    journal = Journal(folder.journal_file)
    try:
        layout, fold = restore(journal, folder, folder.settings().aggregation)
        replayed = all(one.same for one in replay(journal, folder))
        lists = json.loads(journal.fact("statistics") or b"[]")
    finally:
        journal.close()
    return Ending(
        version=fold.version,
        weights=layout.unflatten(fold.model),
        statistics=FeatureStatistics.from_lists(lists) if lists else None,
        ledger=read_books(folder.journal_file, [(name, federation.site(name).outbox_file) for name in sites]).balance(),
        replayed=replayed,
    )
