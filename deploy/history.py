"""What happened in a run, as plain values: filled from journal and outboxes, read by the report and the live view.

Times named `at`, `started` and `accepted_at` are unix seconds; `seconds` are durations. Names and reasons come from
other machines and are untrusted text: `printable` makes them safe to print, escaping is the printer's own duty.
"""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

LEADING: Final = ("auc", "c_index")
SiteState = Literal["failed", "away", "resting", "idle", "training", "behind", "removed"]


@dataclass(frozen=True)
class SiteRow:
    """One line of the live view. `staleness` is that of the site's last accepted update, as are codec and what follows.

    It was `smaller` so many times than 4 bytes a parameter; `error` is what the codec left out, relative to the whole.
    """

    site: str
    state: SiteState
    trains_from: int | None
    staleness: int | None
    accepted: int
    waiting: int
    refused: int
    note: str = ""
    codec: str | None = None
    smaller: float | None = None
    error: float | None = None
    last_seen: float | None = None


@dataclass(frozen=True)
class Merged:
    """An accepted update: trained from `base_version`, part of `version`; its payload took so many bytes."""

    site: str
    sequence: int
    base_version: int
    version: int
    staleness: int
    weight: float
    examples: int
    accepted_at: float
    payload_bytes: int = 0
    codec: str = ""


@dataclass(frozen=True)
class Published:
    """A model version, why it was published then, and how many updates are in it."""

    version: int
    at: float
    reason: str
    updates: int


@dataclass(frozen=True)
class Sent:
    """A model as sites get it: of `version`, in full or as a difference; written once, whoever fetches it."""

    version: int
    full: bool
    codec: str
    payload_bytes: int


@dataclass(frozen=True)
class Evaluated:
    """A site's evaluation of an announced version on its own `rows` held-out rows."""

    site: str
    version: int
    metrics: dict[str, float]
    rows: int
    at: float


@dataclass(frozen=True)
class Refusal:
    """A message that was not admitted; `site` and `sequence` are None where it could not be read."""

    site: str | None
    sequence: int | None
    reason: str
    at: float
    bytes: int = 0


@dataclass(frozen=True)
class Absence:
    """A site was away from `start` to `end` because of `why`, e.g. "killed"; "" where that is not known."""

    site: str
    start: float
    end: float
    why: str


@dataclass(frozen=True)
class Ledger:
    """Where every update that was sent is now."""

    sent: int
    accepted: int
    refused: int
    waiting: int
    lost: int
    doubled: int

    @property
    def line(self) -> str:
        """The account in one line."""
        return (
            f"sent {self.sent} = accepted {self.accepted} + refused {self.refused} + waiting {self.waiting}; "
            f"lost {self.lost}, counted twice {self.doubled}"
        )

    @property
    def balanced(self) -> bool:
        """Nothing lost, nothing counted twice, and the sum is right."""
        return self.lost == self.doubled == 0 and self.sent == self.accepted + self.refused + self.waiting


@dataclass(frozen=True)
class Rule:
    """An aggregation that was decided on at `at`: it makes the versions from `version` on. `settings` are in words."""

    version: int
    at: float
    strategy: str
    settings: str


@dataclass(frozen=True)
class Standing:
    """What only a federation that goes on has: `service` says in words whether it runs, `rules` its strategies."""

    service: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class History:
    """A whole run, or with `standing` a federation until now, whose outboxes are elsewhere: it has no ledger.

    `table` compares ways of training by `metric`: ("NY alone", 0.79), ("federated", 0.864), ... `parameters` is the
    model's size, if known.
    """

    federation: str
    started: float
    seconds: float
    sites: tuple[SiteRow, ...]
    merged: tuple[Merged, ...]
    published: tuple[Published, ...]
    evaluated: tuple[Evaluated, ...]
    refusals: tuple[Refusal, ...]
    absences: tuple[Absence, ...]
    ledger: Ledger | None
    table: tuple[tuple[str, float], ...]
    metric: str = "auc"
    notes: tuple[str, ...] = ()
    sent: tuple[Sent, ...] = ()
    parameters: int | None = None
    standing: Standing | None = None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every site that appears anywhere: those of `sites` in their order, then the others by name."""
        known = [row.site for row in self.sites]
        events: tuple[Merged | Evaluated | Absence, ...] = (*self.merged, *self.evaluated, *self.absences)
        seen = {event.site for event in events}
        return (*dict.fromkeys(known), *sorted(seen - set(known)))

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Names of all that was measured, `metric` first."""
        found = dict.fromkeys(name for one in reversed(self.evaluated) for name in one.metrics)
        return tuple(dict.fromkeys((self.metric, *found))) if self.metric in found else tuple(found)

    @cached_property
    def scores(self) -> dict[str, dict[int, tuple[float, int]]]:
        """Per site (as in `names`) and version: value of `metric` and held-out rows; a value not finite is left out."""
        found: dict[str, dict[int, tuple[float, int]]] = {site: {} for site in self.names}
        for one in self.evaluated:
            value = one.metrics.get(self.metric, math.nan)
            if math.isfinite(value) and one.rows > 0:
                found[one.site][one.version] = (value, one.rows)
        return {site: dict(sorted(by_version.items())) for site, by_version in found.items() if by_version}


def leading_metric(measures: Iterable[str]) -> str:
    """The measure by which models are compared: AUC or c-index if there is one, else the first, else the loss."""
    names = [name for name in measures if name not in {"rows", "loss"}]
    return next((name for name in LEADING if name in names), names[0] if names else "loss")


def mean_by_version(scores: dict[str, dict[int, tuple[float, int]]]) -> list[tuple[int, float]]:
    """The mean over sites, weighted by rows, per version; a site that skipped a version counts with its last score.

    Sites see only the newest announcement, so most skip versions. Averaging whoever happened to answer would make the
    curve jump whenever the company changes.
    """
    changes: dict[int, list[tuple[str, float, int]]] = {}
    for site, by_version in scores.items():
        for version, (value, rows) in by_version.items():
            changes.setdefault(version, []).append((site, value, rows))
    latest: dict[str, tuple[float, int]] = {}
    weighed, total, curve = 0.0, 0, []  # sums that change with each score: a hundred sites make many versions
    for version in sorted(changes):
        for site, value, rows in changes[version]:
            former, its_rows = latest.get(site, (0.0, 0))
            weighed, total = weighed + value * rows - former * its_rows, total + rows - its_rows
            latest[site] = (value, rows)
        curve.append((version, weighed / total))
    return curve


def printable(text: str) -> str:
    """`text` on one line without control, format or surrogate characters, which steer terminals and break files."""
    joined = " ".join(text.split())
    return "".join("\ufffd" if unicodedata.category(sign) in {"Cc", "Cf", "Cs", "Cn"} else sign for sign in joined)


def every(items: Sequence[object], budget: int) -> int:
    """The smallest n such that every n-th of `items` is at most `budget` of them."""
    return max(1, math.ceil(len(items) / budget))
