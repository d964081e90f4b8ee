"""What one run gives, as plain values: for tables, plots, and other programs."""

import hashlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from aggregator.journal import Journal
from deploy.history import Ledger

LOW_IS_GOOD = ("loss", "error", "brier", "calibration")
TABLES = ("facts", "sites", "updates", "refused", "parts", "versions", "presence")


class Point(msgspec.Struct, frozen=True, array_like=True):
    """The model at one time: seconds, version, updates in it, the leading metric."""

    seconds: float
    version: int
    updates: int
    value: float


class Result(msgspec.Struct, frozen=True):
    """One scenario, one strategy, one seed. Times are virtual seconds.

    `reached_s` is when the target was reached, None if it was not. `final` are the metrics of the last model on the
    common rows, `own` the leading metric at each site on its own. `away` is the leading metric on the classes of the
    absent sites, on average over the time they were away. `staleness` maps a staleness to the updates that had it.
    `journal` is a digest of the whole journal: two runs of one seed have the same.
    """

    scenario: str
    strategy: str
    seed: int
    metric: str
    seconds: float
    reached_s: float | None
    final: dict[str, float]
    own: dict[str, float]
    worst: str
    away: float | None
    absent: tuple[str, ...]
    versions: int
    updates: int
    reasons: dict[str, int]
    participation: dict[str, int]
    staleness: dict[int, int]
    bytes_up: int
    bytes_down: int
    kills: int
    ledger: Ledger
    replayed: bool
    journal: str
    curve: tuple[Point, ...]

    @property
    def value(self) -> float:
        """The leading metric of the last model."""
        return self.final[self.metric]

    @property
    def sound(self) -> bool:
        """Whether nothing was lost or counted twice, and the replay gives the same weights."""
        return self.ledger.balanced and self.replayed

    @property
    def mean_staleness(self) -> float:
        """Over all accepted updates."""
        return sum(tau * count for tau, count in self.staleness.items()) / max(1, self.updates)


def staleness_at(counts: Mapping[int, int], share: float) -> int:
    """The staleness that so large a share of updates does not exceed; 0 if there are none."""
    wanted, passed = share * sum(counts.values()), 0
    for tau in sorted(counts):
        passed += counts[tau]
        if passed >= wanted:
            return tau
    return 0


def digest(journal: Journal) -> str:
    """SHA-256 over every row of every table."""
    state = hashlib.sha256()
    for table in TABLES:
        for row in journal.query(f"SELECT * FROM {table} ORDER BY 1, 2"):  # noqa: S608 - names are ours
            state.update(repr((table, *row)).encode())
    return state.hexdigest()


def median(values: Sequence[float | None]) -> float | None:
    """The median, where None (not reached) is more than everything; None if that is the middle."""
    known: list[Any] = sorted(float("inf") if value is None else value for value in values)
    if not known:
        return None
    middle = statistics.median(known)
    return None if middle == float("inf") else middle


def spread(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """The smallest and the largest, None for what was not reached."""
    known = sorted(float("inf") if value is None else value for value in values)
    return tuple(None if one == float("inf") else one for one in (known[0], known[-1]))  # type: ignore[return-value]


def is_better(metric: str, value: float, than: float) -> bool:
    """Whether a value of a metric is at least as good as another."""
    return value <= than if low_is_good(metric) else value >= than


def low_is_good(metric: str) -> bool:
    """Whether a metric counts mistakes."""
    return metric in LOW_IS_GOOD
