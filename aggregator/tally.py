"""What the journal's updates and refusals add up to for each site, counted on from where it was counted last.

A journal keeps the row of every update for ever, so nobody who asks every few seconds may count them all: each row is
read once, and from the index alone, which has no payloads in it.
"""

import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

_SINCE: Final = """
SELECT staleness, count(*) AS updates, sum(payload_bytes) AS bytes, sum(training_s) AS seconds, max(ordinal) AS ordinal
FROM updates INDEXED BY updates_of_sites WHERE site = ? AND ordinal > ? GROUP BY staleness
"""
_REFUSED: Final = """
SELECT site, count(*) AS refusals, max(id) AS id FROM refused NOT INDEXED WHERE id > ? GROUP BY site
"""
_METRICS: Final = "SELECT metrics FROM updates WHERE ordinal = ?"
_NEWEST: Final = """
SELECT base_version, staleness, accepted_at FROM updates INDEXED BY updates_of_sites
WHERE site = ? AND ordinal = ?
"""


@dataclass
class SiteTally:
    """Of one site. `base`, `newest_staleness`, `newest_at` and `metrics`, as JSON, are of its newest update.

    `staleness` says how many updates had which.
    """

    ordinal: int = 0
    bytes: int = 0
    training_s: float = 0.0
    refused: int = 0
    staleness: Counter[int] = field(default_factory=Counter)
    base: int = 0
    newest_staleness: int = 0
    newest_at: float = 0.0
    metrics: str = "{}"

    @property
    def accepted(self) -> int:
        """Updates."""
        return self.staleness.total()


class Tally:
    """Of all sites that were ever asked for. Belongs to one thread at a time."""

    def __init__(self) -> None:
        self._sites: dict[str, SiteTally] = {}
        self._refusal = 0

    def of(self, database: sqlite3.Connection, site: str) -> SiteTally:
        """A site's, with all that the journal has by now."""
        known = self._sites.setdefault(site, SiteTally())
        before = known.ordinal
        for row in database.execute(_SINCE, (site, before)).fetchall():
            known.staleness[row["staleness"]] += row["updates"]
            known.bytes += row["bytes"]
            known.training_s += row["seconds"]
            known.ordinal = max(known.ordinal, row["ordinal"])
        if known.ordinal > before:
            newest = database.execute(_NEWEST, (site, known.ordinal)).fetchone()
            known.base, known.newest_staleness, known.newest_at = newest
            known.metrics = database.execute(_METRICS, (known.ordinal,)).fetchone()["metrics"]
        return known

    def count_refusals(self, database: sqlite3.Connection) -> None:
        """Of all sites; the oldest that settle nothing are deleted from the journal, and still count here."""
        for row in database.execute(_REFUSED, (self._refusal,)).fetchall():
            self._sites.setdefault(row["site"], SiteTally()).refused += row["refusals"]
            self._refusal = max(self._refusal, row["id"])
