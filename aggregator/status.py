"""What the journal says of a federation: for `status`, for the live view, for reports. Reads only."""

import json
import sqlite3
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from aggregator.control import FACT, parsed_control
from aggregator.opening import rule_in
from aggregator.settings import Aggregation, Folder, Storage
from aggregator.transit import Transit, in_transit
from broker.database import open_readonly
from broker.errors import FedqueueError
from broker.folderlock import running_process
from broker.room import free_bytes, full_disk, used_bytes
from broker.weights import map_model

SiteState = Literal["away", "idle", "training", "behind", "removed"]
BEHIND_AFTER: Final = 5
_ALL_SITES: Final = """
SELECT site, present, ready, examples, last_seen, 1 AS enrolled FROM sites
UNION SELECT site, NULL, NULL, NULL, NULL, 0 FROM (SELECT site FROM updates UNION SELECT site FROM refused)
    WHERE site NOT IN (SELECT site FROM sites)
ORDER BY site
"""


@dataclass(frozen=True)
class SiteStatus:
    """One hospital as the aggregator sees it. `base`, `staleness` and `codec` are of its newest accepted update.

    So are `smaller`, how many times smaller than 4 bytes a parameter that was, and `error`, what the codec left out,
    relative to what it was given. A hospital that was removed is still named where it has left updates or refusals.
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


@dataclass(frozen=True)
class Disk:
    """What the folder takes, of which `payload_bytes` are updates, and how much they may take (0: no limit).

    `anchor` is the version from which on everything can be made again; `full` one sentence if there is no room.
    """

    used_bytes: int
    free_bytes: int
    payload_bytes: int
    most_payload_bytes: int
    anchor: int
    full: str | None


@dataclass(frozen=True)
class Status:
    """The federation as of now. `link` is the service's own word on its connection; `last_version` 0 means no end.

    `strategy` is the one in force; `switch_pending` says that aggregator.toml has another [aggregation] by now.
    """

    federation: str
    running: bool
    link: str
    version: int
    started: bool
    paused: bool
    last_version: int
    strategy: str
    switch_pending: bool
    buffered: int
    accepted: int
    refused: int
    sites: tuple[SiteStatus, ...]
    transfers: tuple[Transit, ...]
    disk: Disk

    def to_json(self) -> str:
        """For programs."""
        return json.dumps(asdict(self), indent=2)


def read_status(folder: Folder) -> Status:
    """The status of the aggregator in `folder`, running or not."""
    settings = folder.settings()
    database = open_readonly(folder.journal_file)
    try:
        version = _one(database, "SELECT max(version) FROM versions")
        through = _one(database, "SELECT max(through_ordinal) FROM versions")
        link = _one(database, "SELECT value FROM facts WHERE name = 'link'")
        running = running_process(folder.path) is not None
        control = parsed_control(_one(database, "SELECT value FROM facts WHERE name = ?", FACT))
        asked = control.asks_for_training(version, versions=settings.versions)
        rule, accepted = _rule(database), _one(database, "SELECT count(*) FROM updates")
        seen = _Seen(version, _parameters(database, folder), asked=asked)
        return Status(
            federation=settings.federation,
            running=running,
            link=json.loads(link)[0] if running and link else "not running",
            version=version,
            started=_one(database, "SELECT count(*) FROM facts WHERE name = 'statistics'") > 0,
            paused=control.paused,
            last_version=control.last_version(settings.versions),
            strategy=rule.strategy if accepted else settings.aggregation.strategy,
            switch_pending=accepted > 0 and rule != settings.aggregation,
            buffered=_one(database, "SELECT count(*) FROM updates WHERE ordinal > ?", through),
            accepted=accepted,
            refused=_one(database, "SELECT count(*) FROM refused"),
            sites=tuple(_site(database, row, seen) for row in database.execute(_ALL_SITES)),
            transfers=in_transit(database),
            disk=_disk(database, folder, settings.storage),
        )
    finally:
        database.close()


def read_refused(path: Path, *, last: int) -> list[dict[str, Any]]:
    """The newest refusals, oldest of them first."""
    database = open_readonly(path)
    try:
        rows = database.execute(
            "SELECT at, site, sequence, reason, bytes FROM refused ORDER BY id DESC LIMIT ?", (last,)
        ).fetchall()
    finally:
        database.close()
    return [dict(row) for row in reversed(rows)]


@dataclass(frozen=True)
class _Seen:
    """Against what a site is held: the newest version, how large models are if that is known, and `asked` to train?"""

    version: int
    parameters: int | None
    asked: bool

    def times_smaller(self, payload_bytes: int) -> float | None:
        """Than 4 bytes a parameter; None if that is not known."""
        return 4 * self.parameters / payload_bytes if self.parameters and payload_bytes else None


def _parameters(database: sqlite3.Connection, folder: Folder) -> int | None:
    """Of the model, by the snapshot that is always kept."""
    digest = _one(database, "SELECT digest FROM versions WHERE version = 0")
    with suppress(FedqueueError):
        return map_model(folder.snapshot(digest or b""))[0].size
    return None


def _site(database: sqlite3.Connection, row: sqlite3.Row, seen: _Seen) -> SiteStatus:
    newest = database.execute(
        "SELECT base_version, staleness, codec, payload_bytes, error FROM updates WHERE site = ?"
        " ORDER BY ordinal DESC LIMIT 1",
        (row["site"],),
    ).fetchone()
    base = None if newest is None else newest["base_version"]
    return SiteStatus(
        site=row["site"],
        state=_state(row, base, seen.version, asked=seen.asked),
        base=base,
        staleness=None if newest is None else newest["staleness"],
        accepted=_one(database, "SELECT count(*) FROM updates WHERE site = ?", row["site"]),
        refused=_one(database, "SELECT count(*) FROM refused WHERE site = ?", row["site"]),
        last_seen=row["last_seen"],
        codec=None if newest is None else newest["codec"],
        smaller=None if newest is None else seen.times_smaller(newest["payload_bytes"]),
        error=None if newest is None else newest["error"],
    )


def _state(row: sqlite3.Row, base: int | None, version: int, *, asked: bool) -> SiteState:
    """Away: nobody consumes its rounds queue. Behind: it trains from a version many steps old."""
    if not row["enrolled"]:
        return "removed"
    if not row["present"]:
        return "away"
    if row["examples"] is None or not asked or (base is not None and base >= version):
        return "idle"
    if row["ready"] and version - (base if base is not None else 0) > BEHIND_AFTER:
        return "behind"
    return "training"


def _disk(database: sqlite3.Connection, folder: Folder, storage: Storage) -> Disk:
    removing = _one(database, "SELECT count(*) FROM pragma_table_info('updates') WHERE name = 'removed'")
    kept = "SELECT coalesce(sum(payload_bytes), 0) FROM updates WHERE NOT removed"
    anchor = _one(database, "SELECT value FROM facts WHERE name = 'anchor'")
    return Disk(
        used_bytes=used_bytes(folder.path),
        free_bytes=free_bytes(folder.path),
        payload_bytes=_one(database, kept) if removing else 0,
        most_payload_bytes=round(storage.journal_gb * 1e9),
        anchor=0 if anchor is None else int(anchor),
        full=full_disk(folder.path),
    )


def _rule(database: sqlite3.Connection) -> Aggregation:
    """What is in force; a journal of an older release has no table of it until its aggregator has run."""
    known = _one(database, "SELECT count(*) FROM sqlite_master WHERE name = 'rules'")
    newest = "SELECT rule FROM rules ORDER BY id DESC" if known else "SELECT rule FROM versions ORDER BY version DESC"
    return rule_in(_one(database, newest))


def _one(database: sqlite3.Connection, sql: str, *values: object) -> Any:
    row = database.execute(sql, values).fetchone()
    return None if row is None else row[0]
