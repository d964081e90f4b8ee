"""The history of a run, read from its journal and outboxes. Nothing is written, so it works while everything runs."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from aggregator.settings import Folder as AggregatorFolder
from aggregator.sitestatus import SiteStatus as SeenStatus
from aggregator.status import read_status
from broker.database import open_readonly
from broker.errors import UsageError
from deploy.history import Evaluated, Merged, Published, Refusal, SiteRow, SiteState
from site_worker.settings import Folder as SiteFolder
from site_worker.status import Status as SiteStatus
from site_worker.status import read_status as read_site


@dataclass(frozen=True)
class Events:
    """What the journal says of a run."""

    merged: tuple[Merged, ...]
    published: tuple[Published, ...]
    evaluated: tuple[Evaluated, ...]
    refusals: tuple[Refusal, ...]


def read_events(folder: AggregatorFolder) -> Events:
    """All events of a federation; an update still in the open buffer counts for the version to come."""
    database = open_readonly(folder.journal_file)
    try:
        versions = [
            Published(row["version"], row["at"], row["reason"], row["updates"])
            for row in database.execute("SELECT version, at, reason, updates FROM versions ORDER BY version")
        ]
        coming = versions[-1].version + 1 if versions else 1
        return Events(
            merged=tuple(_merged(row, coming) for row in database.execute("SELECT * FROM merged ORDER BY ordinal")),
            published=tuple(versions),
            evaluated=tuple(_evaluated(database)),
            refusals=tuple(
                Refusal(row["site"], row["sequence"], row["reason"], row["at"])
                for row in database.execute("SELECT site, sequence, reason, at FROM refused ORDER BY id")
            ),
        )
    finally:
        database.close()


def read_rows(aggregator: AggregatorFolder, sites: Sequence[SiteFolder]) -> tuple[int, list[SiteRow]]:
    """The newest version and one line a site, from the aggregator's view and each site's own."""
    status = read_status(aggregator)
    known = {site.site: site for site in status.sites}
    rows: list[SiteRow] = []
    for folder in sites:
        own = _own_status(folder)
        name = folder.settings().site
        seen = known.get(name, _without_trace(name))
        rows.append(
            SiteRow(
                site=name,
                state=_state(seen.state, own),
                trains_from=own.version if own is not None and own.state == "training" else seen.base,
                staleness=seen.staleness,
                accepted=seen.accepted,
                waiting=own.waiting if own is not None else 0,
                refused=seen.refused,
                note=own.detail if own is not None else "",
                codec=seen.codec,
                smaller=seen.smaller,
                error=seen.error,
            )
        )
    return status.version, rows


def _without_trace(site: str) -> SeenStatus:
    """A site that was removed before anything of it was accepted or refused."""
    return SeenStatus(site, "removed", None, None, 0, 0, None)


def _state(seen: SiteState, own: SiteStatus | None) -> SiteState:
    """The aggregator's word, but the site itself knows sooner that it is gone, and why."""
    if seen == "removed" or (own is not None and own.running):
        return seen
    return "failed" if own is not None and own.state == "failed" else "away"


def _own_status(folder: SiteFolder) -> SiteStatus | None:
    try:
        return read_site(folder)
    except UsageError:
        return None


def _merged(row: sqlite3.Row, coming: int) -> Merged:
    version = row["version"] if row["version"] is not None else coming
    return Merged(
        row["site"], row["sequence"], row["base_version"], version, row["staleness"], row["weight"], row["examples"],
        row["accepted_at"],
    )  # fmt: skip


def _evaluated(database: sqlite3.Connection) -> list[Evaluated]:
    rows = database.execute(
        "SELECT site, base_version, metrics, held_out, accepted_at FROM updates WHERE held_out > 0 ORDER BY ordinal"
    )
    return [
        Evaluated(row["site"], row["base_version"], json.loads(row["metrics"]), row["held_out"], row["accepted_at"])
        for row in rows
    ]
