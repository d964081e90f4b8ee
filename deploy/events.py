"""The events of a federation, read from its aggregator's journal while it runs or not. Nothing is written."""

import json
import sqlite3
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from aggregator.journal_tables import VERSION
from aggregator.publications import NOTHING
from aggregator.settings import Folder
from aggregator.status import parameters_in
from broker.database import open_readonly
from broker.errors import StorageError
from broker.histograms import without_histogram
from deploy.history import Evaluated, Merged, Published, Refusal, Sent

_MERGED: Final = """
SELECT ordinal, site, sequence, base_version, staleness, weight, examples, accepted_at, payload_bytes, codec
FROM updates ORDER BY ordinal
"""
_EVALUATED: Final = """
SELECT site, base_version, metrics, held_out, accepted_at FROM updates WHERE held_out > 0 ORDER BY ordinal
"""


@dataclass(frozen=True)
class Events:
    """What the journal says of a run."""

    merged: tuple[Merged, ...]
    published: tuple[Published, ...]
    evaluated: tuple[Evaluated, ...]
    refusals: tuple[Refusal, ...]
    sent: tuple[Sent, ...]
    parameters: int | None


@contextmanager
def reading(folder: Folder) -> Iterator[sqlite3.Connection]:
    """The journal as it is at one moment, whatever its owner adds meanwhile; one sentence if it is of another release.

    A journal of an earlier release lacks columns until its aggregator has run.
    """
    database = open_readonly(folder.journal_file)
    try:
        (found,) = database.execute("PRAGMA user_version").fetchone()
        if found != VERSION:
            raise StorageError(
                f"{folder.journal_file} has schema version {found}, this program needs {VERSION}: run the aggregator of"
                " this release once, which upgrades it."
            )
        database.execute("BEGIN")
        yield database
    except sqlite3.DatabaseError as error:
        raise StorageError(f"{folder.journal_file} cannot be read: {error}.") from error
    finally:
        database.close()


def read_events(folder: Folder) -> Events:
    """All events of a federation; an update still in the open buffer counts for the version to come."""
    with reading(folder) as database:
        return events_in(database, folder)


def events_in(database: sqlite3.Connection, folder: Folder) -> Events:
    """The same from a journal that is open."""
    rows = database.execute("SELECT version, at, reason, updates, through_ordinal FROM versions ORDER BY version")
    versions = rows.fetchall()
    through = [row["through_ordinal"] for row in versions]
    return Events(
        merged=tuple(_merged(row, bisect_left(through, row["ordinal"])) for row in database.execute(_MERGED)),
        published=tuple(Published(row["version"], row["at"], row["reason"], row["updates"]) for row in versions),
        evaluated=tuple(_evaluated(row) for row in database.execute(_EVALUATED)),
        refusals=tuple(
            Refusal(row["site"], row["sequence"], row["reason"], row["at"], row["bytes"])
            for row in database.execute("SELECT site, sequence, reason, at, bytes FROM refused ORDER BY id")
        ),
        sent=tuple(
            Sent(row["version"], row["base"] == NOTHING, row["codec"], row["payload_bytes"])
            for row in database.execute("SELECT version, base, codec, payload_bytes FROM publications ORDER BY version")
        ),
        parameters=parameters_in(database, folder),
    )


def _merged(row: sqlite3.Row, version: int) -> Merged:
    return Merged(
        row["site"], row["sequence"], row["base_version"], version, row["staleness"], row["weight"], row["examples"],
        row["accepted_at"], row["payload_bytes"], row["codec"],
    )  # fmt: skip


def _evaluated(row: sqlite3.Row) -> Evaluated:
    metrics = without_histogram(json.loads(row["metrics"]))
    return Evaluated(row["site"], row["base_version"], metrics, row["held_out"], row["accepted_at"])
