"""What an aggregator tells Prometheus, read from its journal when it is asked.

Nobody asks the loop: the readings have a connection of their own that only reads, so a scrape costs the service nothing
but processor time, and tells what is on the disk.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Final

from aggregator.settings import Folder
from aggregator.tally import SiteTally, Tally
from broker.database import open_readonly
from broker.histograms import without_histogram
from broker.measures import TROUBLE_MEANS, Measure, Reading, Spread, trouble_readings
from broker.room import DiskUse
from broker.troubles import Trouble

BOUNDS: Final = (0, 1, 2, 5, 10, 20, 50, 100)
_OF_ALL, _OF_SITE = ("federation",), ("federation", "site")
CONNECTED: Final = Measure("fedqueue_connected", "gauge", _OF_ALL, "1 while the broker takes and gives messages.")
VERSION: Final = Measure("fedqueue_model_version", "gauge", _OF_ALL, "The newest version of the model.")
MADE: Final = Measure("fedqueue_model_version_timestamp_seconds", "gauge", _OF_ALL, "When that version was decided on.")
BUFFERED: Final = Measure("fedqueue_updates_buffered", "gauge", _OF_ALL, "Accepted updates that no version has yet.")
STALENESS: Final = Measure(
    "fedqueue_update_staleness_versions", "histogram", _OF_SITE, "How many versions were made while an update was."
)
PRESENT: Final = Measure("fedqueue_site_present", "gauge", _OF_SITE, "1 while the site takes rounds.")
BASE: Final = Measure("fedqueue_site_base_version", "gauge", _OF_SITE, "What its newest accepted update was made from.")
SITE_STALENESS: Final = Measure(
    "fedqueue_site_staleness_versions", "gauge", _OF_SITE, "The staleness of its newest accepted update."
)
LAST: Final = Measure(
    "fedqueue_site_last_update_timestamp_seconds", "gauge", _OF_SITE, "When its newest accepted update was accepted."
)
ACCEPTED: Final = Measure("fedqueue_site_updates_accepted_total", "counter", _OF_SITE, "Updates that count.")
REFUSED: Final = Measure("fedqueue_site_updates_refused_total", "counter", _OF_SITE, "Updates and messages refused.")
BYTES: Final = Measure("fedqueue_site_update_bytes_total", "counter", _OF_SITE, "Encoded size of accepted updates.")
TRAINED: Final = Measure(
    "fedqueue_site_training_seconds_total", "counter", _OF_SITE, "What training took, of accepted updates, by the site."
)
METRIC: Final = Measure(
    "fedqueue_site_metric", "gauge", (*_OF_SITE, "metric"), "What the site measured, of the base of its newest update."
)
FREE: Final = Measure("fedqueue_disk_free_bytes", "gauge", _OF_ALL, "Free on the disk of the aggregator's folder.")
USED: Final = Measure("fedqueue_disk_used_bytes", "gauge", _OF_ALL, "What the folder takes, at most 30 s old.")
TROUBLE: Final = Measure("fedqueue_trouble", "gauge", ("federation", "cause", "site"), TROUBLE_MEANS)
MEASURES: Final = (
    CONNECTED, VERSION, MADE, BUFFERED, STALENESS, PRESENT, BASE, SITE_STALENESS, LAST, ACCEPTED, REFUSED, BYTES,
    TRAINED, METRIC, FREE, USED, TROUBLE,
)  # fmt: skip
_NEWEST: Final = "SELECT version, through_ordinal, at FROM versions ORDER BY version DESC LIMIT 1"


class Gauges:
    """All readings of the aggregator in `folder`. Keeps what was counted; belongs to one thread at a time."""

    def __init__(
        self,
        folder: Folder,
        federation: str,
        troubles: Callable[[], Iterable[Trouble]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._federation, self._troubles = folder, federation, troubles
        self._tally, self._disk = Tally(), DiskUse(folder.path, clock=clock)

    def read(self) -> Iterator[Reading]:
        """As of now; whatever cannot be read raises."""
        with closing(open_readonly(self._folder.journal_file)) as database:
            yield from self._of_federation(database)
            yield from self._of_sites(database)
        yield FREE.of(self._disk.free_bytes(), self._federation)
        yield USED.of(self._disk.used_bytes(), self._federation)
        yield from trouble_readings(TROUBLE, self._troubles(), self._federation)

    def _of_federation(self, database: sqlite3.Connection) -> Iterator[Reading]:
        version, through, at = database.execute(_NEWEST).fetchone()
        (buffered,) = database.execute("SELECT count(*) FROM updates WHERE ordinal > ?", (through,)).fetchone()
        yield CONNECTED.of(_connected(database), self._federation)
        yield VERSION.of(version, self._federation)
        yield MADE.of(at, self._federation)
        yield BUFFERED.of(buffered, self._federation)

    def _of_sites(self, database: sqlite3.Connection) -> Iterator[Reading]:
        self._tally.count_refusals(database)
        for site, present in database.execute("SELECT site, present FROM sites ORDER BY site").fetchall():
            yield PRESENT.of(bool(present), self._federation, site)
            yield from self._of_site(self._tally.of(database, site), site)

    def _of_site(self, tally: SiteTally, site: str) -> Iterator[Reading]:
        names = (self._federation, site)
        yield ACCEPTED.of(tally.accepted, *names)
        yield REFUSED.of(tally.refused, *names)
        yield BYTES.of(tally.bytes, *names)
        yield TRAINED.of(tally.training_s, *names)
        yield STALENESS.of(Spread.of(tally.staleness, BOUNDS), *names)
        if tally.accepted:
            yield BASE.of(tally.base, *names)
            yield SITE_STALENESS.of(tally.newest_staleness, *names)
            yield LAST.of(tally.newest_at, *names)
        for metric, value in without_histogram(json.loads(tally.metrics)).items():
            yield METRIC.of(value, *names, metric)


def _connected(database: sqlite3.Connection) -> bool:
    """By the service's own word."""
    link = database.execute("SELECT value FROM facts WHERE name = 'link'").fetchone()
    return link is not None and json.loads(link["value"])[0] == "connected"
