"""Where an exported model comes from, read from the journal: versions, sites, rule, measures, refusals.

Everything is as of the exported version, but for the measures: sites evaluate a version when they train from it, so
those of a version come with updates that are in later ones. All of it is what sites said of themselves.
"""

import json
import math
import sqlite3
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from aggregator.fold import Fold
from aggregator.journal import Journal, VersionRow
from aggregator.opening import directions, rule_of
from aggregator.settings import Settings
from broker.errors import UsageError
from broker.histograms import (
    histogram_of,
    pooled_auc,
    pooled_auc_bound,
    pooled_calibration,
    pooled_calibration_bound,
    without_histogram,
)
from broker.weights import Layout


@dataclass(frozen=True)
class Member:
    """One site's part in a version. `examples` are of its newest update; `share` sums to 1 over the sites.

    An update's share is the factor with which its delta went into the model, as a part of all such factors.
    """

    site: str
    updates: int
    examples: int
    mean_staleness: float
    share: float


@dataclass(frozen=True)
class Evaluation:
    """What a site measured of version `version` on its own `rows` held-out rows; `histogram`: broker/histograms.py."""

    site: str
    version: int
    rows: int
    metrics: dict[str, float]
    histogram: dict[str, float] | None = None


@dataclass(frozen=True)
class Card:
    """All facts of a version. `evaluations` are each site's newest of this version or one before it."""

    federation: str
    task: str
    version: int
    digest: str
    parameters: int
    made_at: str
    tensors: tuple[tuple[str, tuple[int, ...]], ...]
    rule: dict[str, Any]
    sites: tuple[Member, ...]
    evaluations: tuple[Evaluation, ...]
    refused: int

    @property
    def means(self) -> dict[str, float]:
        """Each metric's mean over the sites that measured it, weighted by their held-out rows."""
        names = sorted({name for one in self.evaluations for name in one.metrics})
        return {name: self._mean(name) for name in names}

    @property
    def of_one_version(self) -> bool:
        """Whether all sites have measured the same version."""
        return len({one.version for one in self.evaluations}) <= 1

    @property
    def pooled(self) -> dict[str, float]:
        """Area under the curve and calibration over the rows of all sites that sent histograms, with their bounds."""
        histograms = [one.histogram for one in self.evaluations if one.histogram is not None]
        measures = {
            "auc": pooled_auc,
            "auc_bound": pooled_auc_bound,
            "calibration": pooled_calibration,
            "calibration_bound": pooled_calibration_bound,
        }
        found = {name: measure(histograms) for name, measure in measures.items()} if histograms else {}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def _mean(self, name: str) -> float:
        pairs = [(one.rows, one.metrics[name]) for one in self.evaluations if name in one.metrics]
        return sum(rows * value for rows, value in pairs) / sum(rows for rows, _ in pairs)

    def metadata(self) -> dict[str, str]:
        """For the safetensors file: names to find it by, and everything as JSON under `card`."""
        whole = json.dumps(asdict(self) | {"means": self.means, "pooled": self.pooled})
        return {
            "federation": self.federation,
            "task": self.task,
            "version": str(self.version),
            "digest": self.digest,
            "card": whole,
        }


def read_card(journal: Journal, settings: Settings, layout: Layout, fold: Fold) -> Card:
    """The card of the version at which `fold` stands; UsageError if the journal has no such version."""
    versions = journal.versions()[: fold.version + 1]
    if len(versions) != fold.version + 1:
        raise UsageError(f"The journal has no version {fold.version}.")
    row = versions[-1]
    (refused,) = journal.query("SELECT count(*) FROM refused WHERE at <= ?", row.at)[0]
    return Card(
        federation=settings.federation,
        task=settings.task,
        version=row.version,
        digest=fold.digest.hex(),
        parameters=layout.size,
        made_at=datetime.fromtimestamp(row.at, tz=UTC).isoformat(timespec="seconds"),
        tensors=tuple((tensor.name, tensor.shape) for tensor in layout.tensors),
        rule=msgspec.to_builtins(rule_of(row)),
        sites=_members(journal, versions),
        evaluations=_evaluations(journal, row.version),
        refused=refused,
    )


def _members(journal: Journal, versions: list[VersionRow]) -> tuple[Member, ...]:
    rows = journal.query(
        "SELECT site, count(*) AS updates, avg(staleness) AS staleness, max(ordinal) AS newest FROM updates"
        " WHERE ordinal <= ? GROUP BY site ORDER BY site",
        versions[-1].through_ordinal,
    )
    factors = _factors(journal, versions)
    total = sum(factors.values()) or 1.0
    return tuple(
        Member(
            site=row["site"],
            updates=row["updates"],
            examples=journal.query("SELECT examples FROM updates WHERE ordinal = ?", row["newest"])[0]["examples"],
            mean_staleness=row["staleness"],
            share=factors.get(row["site"], 0.0) / total,
        )
        for row in rows
    )


def _factors(journal: Journal, versions: list[VersionRow]) -> dict[str, float]:
    """Per site the sum of the coefficients of its deltas over all versions: see aggregator/strategies.py."""
    factors: dict[str, float] = {}
    for strategy, situation, direction in directions(journal, versions):
        members = [(one.ordinal, one.site) for one in situation.buffer]
        for remembered in (*situation.memory.values(), *situation.former.values()):
            members += [(ordinal, remembered.site) for ordinal in remembered.ordinals]
        site_of = dict(members)
        for part in (direction.once, direction.kept):
            for source, value in part.terms.items():
                if source.kind == "update":
                    site = site_of[source.number]
                    factors[site] = (
                        factors.get(site, 0.0) + strategy.server_rate * direction.rate * value / part.divisor
                    )
    return factors


def _evaluations(journal: Journal, version: int) -> tuple[Evaluation, ...]:
    rows = journal.query(
        "SELECT site, base_version, held_out, metrics FROM updates WHERE held_out > 0 AND base_version <= ?"
        " ORDER BY base_version, ordinal",
        version,
    )
    newest = {row["site"]: row for row in rows}
    return tuple(_evaluation(site, row) for site, row in sorted(newest.items()))


def _evaluation(site: str, row: sqlite3.Row) -> Evaluation:
    metrics = json.loads(row["metrics"])
    return Evaluation(site, row["base_version"], row["held_out"], without_histogram(metrics), histogram_of(metrics))
