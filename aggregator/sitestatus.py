"""One hospital as the aggregator sees it, from the journal: the rows of `status`. Reads only."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, Literal

from broker.histograms import without_histogram

SiteState = Literal["away", "resting", "idle", "training", "behind", "removed"]
BEHIND_AFTER: Final = 5
LATELY: Final = 5  # updates whose median tells how long a site's rounds take
_ENROLLED: Final = """
SELECT site, present, ready, examples, last_seen, account, 1 AS enrolled FROM sites ORDER BY site
"""
_ALL_SITES: Final = """
SELECT site, present, ready, examples, last_seen, account, 1 AS enrolled FROM sites
UNION SELECT site, NULL, NULL, NULL, NULL, NULL, 0 FROM (SELECT site FROM updates UNION SELECT site FROM refused)
    WHERE site NOT IN (SELECT site FROM sites)
ORDER BY site
"""
_NEWEST: Final = """
SELECT base_version, staleness, codec, payload_bytes, error, metrics, accepted_at FROM updates WHERE site = ?
ORDER BY ordinal DESC LIMIT 1
"""
_TOTALS: Final = """
SELECT count(*) AS accepted, coalesce(sum(payload_bytes), 0) AS bytes,
    (SELECT count(*) FROM refused WHERE site = :site) AS refused FROM updates WHERE site = :site
"""
_REFUSAL: Final = "SELECT reason, at FROM refused WHERE id = (SELECT max(id) FROM refused WHERE site = ?)"
_SINCE: Final = "SELECT site, max(at) FROM presence GROUP BY site"  # when each came or went last


@dataclass(frozen=True)
class SiteStatus:
    """`base`, `staleness`, `codec`, `metrics` (no histograms) and `newest_at` are of its newest accepted update.

    So are `smaller`, how many times smaller than 4 bytes a parameter that was, and `error`, what the codec left out,
    relative to what it was given. Its rounds take `usual_s` of training in the median of the last ones. It has been
    `state`, away or not, `since`. `refusal` is why its newest message was refused, None once it is accepted again. A
    hospital that was removed is still named where it has left updates or refusals.
    """

    site: str
    state: SiteState
    base: int | None
    staleness: int | None
    accepted: int
    refused: int
    last_seen: float | None
    codec: str | None = None
    smaller: float | None = None
    error: float | None = None
    bytes: int = 0
    metrics: dict[str, float] | None = None
    newest_at: float | None = None
    usual_s: float | None = None
    since: float | None = None
    refusal: str | None = None
    refused_at: float | None = None
    account: str | None = None


@dataclass(frozen=True)
class Seen:
    """Against what a site is held: the newest version, how large models are if that is known, and `asked` to train?"""

    version: int
    parameters: int | None
    asked: bool

    def times_smaller(self, payload_bytes: int) -> float | None:
        """Than 4 bytes a parameter; None if that is not known."""
        return 4 * self.parameters / payload_bytes if self.parameters and payload_bytes else None


def site_statuses(database: sqlite3.Connection, seen: Seen, *, counted: bool = True) -> Iterator[SiteStatus]:
    """All hospitals, by name; if not `counted`, the enrolled ones, and 0 for what is counted over the whole journal."""
    resting = database.execute("SELECT value FROM facts WHERE name = 'resting'").fetchone()
    rest = set(json.loads(resting["value"])) if resting else set[str]()
    since = dict(database.execute(_SINCE).fetchall())
    for row in database.execute(_ALL_SITES if counted else _ENROLLED).fetchall():
        site = row["site"]
        totals = tuple(database.execute(_TOTALS, {"site": site}).fetchone()) if counted else (0, 0, 0)
        yield _site(database, row, seen, resting=site in rest, since=since.get(site), totals=totals)


def _site(
    database: sqlite3.Connection,
    row: sqlite3.Row,
    seen: Seen,
    *,
    resting: bool,
    since: float | None,
    totals: tuple[int, int, int],
) -> SiteStatus:
    site, (accepted, size, refused) = row["site"], totals
    newest = database.execute(_NEWEST, (site,)).fetchone()
    refusal = database.execute(_REFUSAL, (site,)).fetchone()
    known: dict[str, Any] = {} if newest is None else _of_newest(newest, seen)
    bad = refusal is not None and (newest is None or refusal["at"] > newest["accepted_at"])
    return SiteStatus(
        site=site,
        state=_state(row, known.get("base"), seen, resting=resting),
        accepted=accepted,
        refused=refused,
        bytes=size,
        last_seen=row["last_seen"],
        usual_s=_usual_s(database, site),
        since=since,
        refusal=refusal["reason"] if bad else None,
        refused_at=refusal["at"] if bad else None,
        account=row["account"],
        **{"base": None, "staleness": None, **known},
    )


def _of_newest(newest: sqlite3.Row, seen: Seen) -> dict[str, Any]:
    return {
        "base": newest["base_version"],
        "staleness": newest["staleness"],
        "codec": newest["codec"],
        "smaller": seen.times_smaller(newest["payload_bytes"]),
        "error": newest["error"],
        "metrics": without_histogram(json.loads(newest["metrics"])),
        "newest_at": newest["accepted_at"],
    }


def _usual_s(database: sqlite3.Connection, site: str) -> float | None:
    lately = "SELECT training_s FROM updates WHERE site = ? ORDER BY ordinal DESC LIMIT ?"
    times = [float(row["training_s"]) for row in database.execute(lately, (site, LATELY))]
    return median(times) if times else None


def _state(row: sqlite3.Row, base: int | None, seen: Seen, *, resting: bool) -> SiteState:
    """Away: nobody consumes its rounds queue. Behind: it trains from a version many steps old."""
    if not row["enrolled"]:
        return "removed"
    if not row["present"]:
        return "resting" if resting else "away"
    if row["examples"] is None or not seen.asked or (base is not None and base >= seen.version):
        return "idle"
    if row["ready"] and seen.version - (base if base is not None else 0) > BEHIND_AFTER:
        return "behind"
    return "training"
