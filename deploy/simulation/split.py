"""How the rows of a pooled task are divided among sites: pure functions of labels and a random generator.

Every row goes to exactly one site, and every site gets at least LEAST rows: what it lacks is taken from the largest.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from broker.errors import UsageError

Numbers = NDArray[np.int64]
Random = np.random.Generator
Shift = tuple[NDArray[np.float64], NDArray[np.float64]]
LEAST: Final = 8


def even(rows: int, sites: int, random: Random) -> list[Numbers]:
    """Shuffled and cut into equal parts."""
    return np.array_split(random.permutation(rows), _possible(rows, sites))


def quantity(rows: int, sites: int, random: Random, *, skew: float) -> list[Numbers]:
    """Shuffled and cut into parts whose sizes fall as rank ** -skew; which site is large is drawn."""
    shares = random.permutation(np.arange(1, _possible(rows, sites) + 1, dtype=np.float64) ** -skew)
    ends = np.round(np.cumsum(shares) / shares.sum() * rows).astype(np.int64)
    return _filled(np.split(random.permutation(rows), ends[:-1]))


def dirichlet(labels: Numbers, sites: int, random: Random, *, alpha: float) -> list[Numbers]:
    """The rows of each class are shared out by a draw from Dirichlet(alpha) of its own (Hsu et al. 2019).

    A small alpha gives most of a class to one site or two, a large one the same mixture to all.
    """
    _possible(len(labels), sites)
    parts: list[list[Numbers]] = [[] for _ in range(sites)]
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        shares = random.dirichlet(np.full(sites, alpha))
        ends = np.round(np.cumsum(shares) * len(rows)).astype(np.int64)
        for site, some in enumerate(np.split(rows, ends[:-1])):
            parts[site].append(some)
    return _filled([np.concatenate(part) for part in parts])


def shifts(sites: int, features: int, random: Random, *, amount: float) -> list[Shift]:
    """What each site's instruments do to a feature: a factor around 1 and an offset around 0, `amount` their spread."""
    return [
        (np.exp(random.normal(0.0, amount / 4, features)), random.normal(0.0, amount / 4, features))
        for _ in range(sites)
    ]


def uniqueness(labels: Numbers, parts: Sequence[Numbers]) -> list[float]:
    """Of each site: how much of its rows' classes it holds alone, from 1 / sites to 1 (mean over its rows)."""
    classes, place = np.unique(labels, return_inverse=True)
    counts = np.array([np.bincount(place[part], minlength=len(classes)) for part in parts], dtype=np.float64)
    share = counts / counts.sum(axis=0)
    return [float(one) for one in (counts * share).sum(axis=1) / counts.sum(axis=1)]


def own_labels(labels: Numbers, parts: Sequence[Numbers], site: int) -> list[int]:
    """The classes of which this site holds more rows than any other; at least the one of which it has most."""
    classes, place = np.unique(labels, return_inverse=True)
    counts = np.array([np.bincount(place[part], minlength=len(classes)) for part in parts])
    first = counts.argmax(axis=0) == site
    if not first.any():
        first[(counts[site] / counts.sum(axis=0)).argmax()] = True
    return [int(one) for one in classes[first]]


def _possible(rows: int, sites: int) -> int:
    if rows < sites * LEAST:
        raise UsageError(f"{rows} rows are too few for {sites} sites: each needs {LEAST}; choose fewer sites.")
    return sites


def _filled(parts: list[Numbers]) -> list[Numbers]:
    """Rows of the largest parts go to those that have too few."""
    for site in range(len(parts)):
        while len(parts[site]) < LEAST:
            largest = max(range(len(parts)), key=lambda one: len(parts[one]))
            parts[site] = np.append(parts[site], parts[largest][-1])
            parts[largest] = parts[largest][:-1]
    return parts
