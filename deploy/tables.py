"""The tables of a report, as values: ways of training compared, what each site gave, measured and sent, refusals."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from deploy.history import Evaluated, History, Merged, SiteRow

REASON_SIGNS: Final = 240
UNSORTED: Final = 12  # rows of the comparison that are seen at a glance


@dataclass(frozen=True)
class Compared:
    """A row of the comparison; `at` is its place on the common scale in per cent, None if `value` is not a number."""

    name: str
    value: float
    at: float | None
    shared: bool


@dataclass(frozen=True)
class Contribution:
    """What a site's accepted updates amount to; `share` is its part of the sum of all weights, in per cent."""

    site: str
    updates: int
    examples: int
    staleness: float | None
    share: float


@dataclass(frozen=True)
class Measured:
    """A site's own evaluations: `first` is (version, leading metric), `values` are the newest of all metrics asked for.

    None where it is not a number, as an area under the curve where all held-out rows are of one class.
    """

    site: str
    times: int
    rows: int
    version: int
    first: tuple[int, float | None]
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Received:
    """What a site's accepted updates took, `smaller` so many times than 4 bytes a parameter; `newest` is its row."""

    site: str
    updates: int
    bytes: int
    smaller: float | None
    codecs: str
    refused_bytes: int
    newest: SiteRow | None = None


@dataclass(frozen=True)
class Refused:
    """Refusals of one site for one reason: how many times, the first and the last time."""

    site: str
    reason: str
    times: int
    first: float
    last: float


def compared(table: Sequence[tuple[str, float]]) -> list[Compared]:
    """The comparison on one scale that spans its values; a long one begins with the rows that are not one site's."""
    finite = [value for _, value in table if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    width = (high - low) or 1.0
    return [
        Compared(name, value, 4 + 92 * (value - low) / width if math.isfinite(value) else None, name == "federated")
        for name, value in sorted(table, key=lambda row: len(table) > UNSORTED and row[0].endswith(" alone"))
    ]


def gains(history: History) -> list[str]:
    """How the federated model compares with the others, in words that hold for errors as for scores."""
    table = {name: value for name, value in history.table if math.isfinite(value)}
    if "federated" not in table:
        return []
    alone = [value for name, value in table.items() if name.endswith(" alone")]
    others = [("the average site alone", sum(alone) / len(alone))] if alone else []
    others += [("training on the pooled data", table["pooled"])] if "pooled" in table else []
    return [_difference(table["federated"] - value, name) for name, value in others]


def contributions(history: History) -> list[Contribution]:
    """One row per site, also for those of which nothing was accepted."""
    total = math.fsum(one.weight for one in history.merged) or 1.0
    return [
        Contribution(
            site=site,
            updates=len(own),
            examples=sum(one.examples for one in own),
            staleness=sum(one.staleness for one in own) / len(own) if own else None,
            share=100 * math.fsum(one.weight for one in own) / total,
        )
        for site, own in _by_site(history).items()
    ]


def measures(history: History, metrics: Sequence[str]) -> list[Measured]:
    """One row per site that has evaluated anything."""
    found: dict[str, list[Evaluated]] = {site: [] for site in history.names}
    for one in history.evaluated:
        found[one.site].append(one)
    rows = []
    for site, own in found.items():
        if own and metrics:
            oldest, newest = min(own, key=lambda one: one.version), max(own, key=lambda one: one.version)
            values = tuple(_number(newest, name) for name in metrics)
            first = (oldest.version, _number(oldest, metrics[0]))
            rows.append(Measured(site, len(own), newest.rows, newest.version, first, values))
    return rows


def received(history: History) -> list[Received]:
    """One row per site, and if there are several one for all of them."""
    refused = Counter[str]()
    for one in history.refusals:
        refused[one.site or ""] += one.bytes
    rows, by_site = {row.site: row for row in history.sites}, _by_site(history)
    found = [_received(site, own, history, refused[site], rows.get(site)) for site, own in by_site.items()]
    if len(found) > 1:
        found.append(_received("all", history.merged, history, refused.total()))
    return found


def by_version(history: History) -> list[tuple[int, int, int]]:
    """(version, bytes of the updates that are in it, bytes of it as sent to the sites); only where there are any."""
    came, went = Counter[int](), Counter[int]()
    for update in history.merged:
        came[update.version] += update.payload_bytes
    for model in history.sent:
        went[model.version] += model.payload_bytes
    return [(version, came[version], went[version]) for version in sorted(came | went)]


def refusals(history: History) -> list[Refused]:
    """Refusals by site and reason, the most frequent first."""
    found: dict[tuple[str, str], list[float]] = {}
    for one in history.refusals:
        found.setdefault((one.site or "unknown sender", one.reason[:REASON_SIGNS]), []).append(one.at)
    rows = [Refused(site, why, len(at), min(at), max(at)) for (site, why), at in found.items()]
    return sorted(rows, key=lambda row: (-row.times, row.first))


def _by_site(history: History) -> dict[str, list[Merged]]:
    found: dict[str, list[Merged]] = {site: [] for site in history.names}
    for one in history.merged:
        found[one.site].append(one)
    return found


def _received(
    site: str, own: Sequence[Merged], history: History, refused_bytes: int, row: SiteRow | None = None
) -> Received:
    size = sum(one.payload_bytes for one in own)
    whole = 4 * (history.parameters or 0) * len(own)
    codecs = Counter(one.codec for one in own).most_common()
    words = codecs[0][0] if len(codecs) == 1 else ", ".join(f"{name} ({times})" for name, times in codecs)
    return Received(site, len(own), size, whole / size if whole and size else None, words, refused_bytes, row)


def _number(one: Evaluated, name: str) -> float | None:
    value = one.metrics.get(name, math.nan)
    return value if math.isfinite(value) else None


def _difference(by: float, other: str) -> str:
    size = f"{abs(by):.3f}"
    return f"equal to {other}" if float(size) == 0 else f"{size} {'above' if by > 0 else 'below'} {other}"
