"""What a worker tells Prometheus, read from its sites' outboxes when it is asked; sites that name one port share it.

A site whose outbox cannot be read, or is not there yet, is left out and does not hide the others. Whoever cannot go on
says so in the log and in its status anyway.
"""

import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from broker.database import open_readonly
from broker.errors import FedqueueError, UsageError
from broker.events import event
from broker.exposition import exposed
from broker.measures import TROUBLE_MEANS, Measure, Metrics, Reading, trouble_readings
from broker.troubles import Trouble
from site_worker.health import troubles
from site_worker.settings import Folder
from site_worker.status import Status, read_status

log = logging.getLogger(__name__)

_LABELS: Final = ("site",)
STATE: Final = Measure("fedqueue_worker_state", "gauge", ("site", "state"), "1 for the state that the worker is in.")
SINCE: Final = Measure("fedqueue_worker_state_since_timestamp_seconds", "gauge", _LABELS, "Since when it is in it.")
VERSION: Final = Measure(
    "fedqueue_worker_version", "gauge", _LABELS, "The version that it trained from last, or fetches or trains from now."
)
WAITING: Final = Measure("fedqueue_worker_updates_waiting", "gauge", _LABELS, "Updates that no receipt has settled.")
ACCEPTED: Final = Measure("fedqueue_worker_updates_accepted_total", "counter", _LABELS, "Updates that count.")
REFUSED: Final = Measure("fedqueue_worker_updates_refused_total", "counter", _LABELS, "Updates that were refused.")
FREE: Final = Measure("fedqueue_worker_disk_free_bytes", "gauge", _LABELS, "Free on the disk of the site's folder.")
TROUBLE: Final = Measure("fedqueue_trouble", "gauge", ("cause", "site"), TROUBLE_MEANS)
MEASURES: Final = (STATE, SINCE, VERSION, WAITING, ACCEPTED, REFUSED, FREE, TROUBLE)
_SETTLED: Final = """
SELECT coalesce((SELECT min(sequence) FROM updates WHERE state = 'waiting'), (SELECT max(sequence) + 1 FROM updates), 1)
"""
_STATES: Final = """
SELECT state, count(*) FROM updates NOT INDEXED WHERE sequence >= ? AND sequence < ? GROUP BY state
"""
_ALL: Final = 1 << 62


class Settlements:
    """How many updates of an outbox are in which state. Those before the first that waits are counted only once."""

    def __init__(self) -> None:
        self._counted = Counter[str]()
        self._next = 1

    def read(self, database: sqlite3.Connection) -> Counter[str]:
        """As of now."""
        (settled,) = database.execute(_SETTLED).fetchone()
        if settled > self._next:
            self._counted.update(_states(database, self._next, settled))
            self._next = settled
        return self._counted + Counter(_states(database, self._next, _ALL))


def _states(database: sqlite3.Connection, first: int, end: int) -> dict[str, int]:
    return dict(database.execute(_STATES, (first, end)).fetchall())


class Gauges:
    """The readings of the worker in `folder`. Keeps what was counted; belongs to one thread at a time."""

    def __init__(self, folder: Folder, *, find: Callable[[Status], Iterable[Trouble]] = troubles) -> None:
        self._folder, self._find, self._settlements = folder, find, Settlements()
        self._said: str | None = None

    def read(self) -> list[Reading]:
        """As of now; none of a site that cannot be read, which is one line in the log."""
        try:
            found = list(self._read())
        except UsageError:  # has not begun yet
            return []
        except (FedqueueError, sqlite3.Error) as error:
            if str(error) != self._said:
                event(log, "metrics-silent", reason=f"No metrics of {self._folder.path}: {str(error).rstrip('.')}")
            self._said = str(error)
            return []
        self._said = None
        return found

    def _read(self) -> Iterator[Reading]:
        with closing(open_readonly(self._folder.outbox_file)) as database:
            counts = self._settlements.read(database)
        status = read_status(self._folder, counted=False)
        site = status.site
        yield STATE.of(1, site, status.state)
        yield SINCE.of(status.since, site)
        if status.version is not None:
            yield VERSION.of(status.version, site)
        yield WAITING.of(counts["waiting"], site)
        yield ACCEPTED.of(counts["accepted"], site)
        yield REFUSED.of(counts["refused"], site)
        yield FREE.of(status.free_bytes, site)
        yield from trouble_readings(TROUBLE, self._find(status))


@contextmanager
def metrics_of(folders: Sequence[Path]) -> Iterator[None]:
    """Serve the metrics of the sites in `folders` while the block runs: at each address and port those that name it."""
    sites: dict[Metrics, list[Gauges]] = {}
    for folder in map(Folder, folders):
        with suppress(UsageError):  # which its worker will say
            sites.setdefault(folder.settings().metrics, []).append(Gauges(folder))
    with ExitStack() as stack:
        for metrics, gauges in sites.items():
            stack.enter_context(exposed(metrics, partial(_all_readings, gauges)))
        yield


def _all_readings(sites: Sequence[Gauges]) -> list[Reading]:
    return [reading for site in sites for reading in site.read()]
