"""How good every version of a finished run is on rows that no site has, and when it was made.

The journal is folded from version 0 on, one version after the other, and every digest on the way must be the journal's:
a curve of versions that do not replay is never drawn.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from aggregator.journal import Journal, VersionRow
from aggregator.memory import Contribution
from aggregator.opening import restore, rule_of
from aggregator.settings import Folder
from broker.errors import StorageError

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Point:
    """A version, the seconds from the start to its publication, and its metric."""

    version: int
    seconds: float
    value: float


def models(journal: Journal, folder: Folder) -> Iterator[tuple[VersionRow, Weights]]:
    """Every version after 0 with its weights, which are good until the next is asked for."""
    versions = journal.versions()
    layout, fold = restore(journal, folder, rule_of(versions[0]), at_version=0)
    for before, row in pairwise(versions):
        fold.strategy = rule_of(row).build()
        for one in journal.folded(after=before.through_ordinal, through=row.through_ordinal):
            fold.add(Contribution(one.site, one.ordinal, one.staleness, one.examples, one.base_version))
        fold.step()
        if row.digest not in (b"", fold.digest):
            raise StorageError(f"Folding the journal of {folder.path} does not give version {row.version}.")
        yield row, layout.unflatten(fold.model)


def curve(folder: Folder, judge: Callable[[Weights], float], *, started: float) -> list[Point]:
    """The metric of every version; `started` is in unix seconds."""
    journal = Journal(folder.journal_file)
    try:
        return [Point(row.version, row.at - started, judge(weights)) for row, weights in models(journal, folder)]
    finally:
        journal.close()


def rolling(points: Sequence[Point], width: int) -> list[Point]:
    """The mean of each version and those before it, `width` together; the first ones, with fewer, are left out."""
    values = [one.value for one in points]
    return [
        Point(one.version, one.seconds, float(np.mean(values[end - width : end])))
        for end, one in enumerate(points, start=1)
        if end >= width
    ]


def reached(points: Sequence[Point], target: float) -> float | None:
    """Seconds to the first point at `target` or above."""
    return next((one.seconds for one in points if one.value >= target), None)


def stays(points: Sequence[Point], target: float) -> float | None:
    """Seconds to the point from which on none is below `target`; None if the last one is."""
    below = [place for place, one in enumerate(points) if one.value < target]
    after = below[-1] + 1 if below else 0
    return points[after].seconds if after < len(points) else None
