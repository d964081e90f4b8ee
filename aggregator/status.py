"""What the journal says of a federation: for `status`, for the live view, for reports. Reads only."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final

from aggregator.console import Console
from aggregator.control import FACT, parsed_control
from aggregator.opening import rule_in
from aggregator.settings import Aggregation, Folder, Storage
from aggregator.sitestatus import Seen, SiteStatus, site_statuses
from aggregator.transit import Transit, in_transit
from broker.database import open_readonly
from broker.errors import FedqueueError
from broker.folderlock import running_process
from broker.room import free_bytes, full_disk, used_bytes
from broker.weights import map_model

LATELY: Final = 9  # versions whose gaps' median is the usual one
_NEWEST_VERSION: Final = "SELECT version, through_ordinal, at FROM versions ORDER BY version DESC LIMIT 1"


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

    `troubles` are what it waits for, by kind: down, stuck, disk, repair; or `ended` if the broker refused it for good.
    The newest version was `made_at`, and versions come every `usual_gap_s` in the median; None of fewer than three.
    `missing` are the queues that were found deleted, and when. `greeted` of `min_sites` hospitals have said hello.
    `console` is what the broker's management API last said: aggregator/console.py.
    `strategy` is the one in force; `switch_pending` says that aggregator.toml has another [aggregation] by now.
    """

    federation: str
    running: bool
    link: str
    troubles: Mapping[str, str]
    version: int
    made_at: float
    usual_gap_s: float | None
    started: bool
    paused: bool
    last_version: int
    strategy: str
    switch_pending: bool
    buffered: int
    accepted: int
    refused: int
    min_sites: int
    greeted: int
    missing: Mapping[str, float]
    console: Console | None
    sites: tuple[SiteStatus, ...]
    transfers: tuple[Transit, ...]
    disk: Disk

    def to_json(self) -> str:
        """For programs."""
        return json.dumps(asdict(self), indent=2)


def read_status(folder: Folder, *, counted: bool = True) -> Status:
    """The status of the aggregator in `folder`, running or not.

    Not `counted` it is for who looks often: sites that were removed are left out, and what is counted over the whole
    journal or folder is 0: `accepted`, `refused`, `bytes`, `used_bytes`, `payload_bytes`.
    """
    database = open_readonly(folder.journal_file)
    try:
        return _status(database, folder, counted=counted)
    finally:
        database.close()


def _status(database: sqlite3.Connection, folder: Folder, *, counted: bool) -> Status:
    settings, facts = folder.settings(), _facts(database)
    version, through, made_at = database.execute(_NEWEST_VERSION).fetchone()
    running = running_process(folder.path) is not None
    control = parsed_control(facts.get(FACT))
    asked = control.asks_for_training(version, versions=settings.versions)
    rule, any_yet = _rule(database), _one(database, "SELECT 1 FROM updates LIMIT 1") is not None
    seen = Seen(version, parameters_in(database, folder), asked=asked)
    link, troubles = _link(facts) if running else ("not running", _ended(facts))
    return Status(
        federation=settings.federation,
        running=running,
        link=link,
        troubles=troubles,
        version=version,
        made_at=made_at,
        usual_gap_s=_usual_gap_s(database),
        started="statistics" in facts,
        paused=control.paused,
        last_version=control.last_version(settings.versions),
        strategy=rule.strategy if any_yet else settings.aggregation.strategy,
        switch_pending=any_yet and rule != settings.aggregation,
        buffered=_one(database, "SELECT count(*) FROM updates WHERE ordinal > ?", through),
        accepted=_one(database, "SELECT count(*) FROM updates") if counted else 0,
        refused=_one(database, "SELECT count(*) FROM refused") if counted else 0,
        min_sites=settings.start.min_sites,
        greeted=_one(database, "SELECT count(*) FROM sites WHERE examples IS NOT NULL"),
        missing=json.loads(facts.get("missing", b"{}")) if running else {},
        console=Console.from_bytes(facts["console"]) if running and "console" in facts else None,
        sites=tuple(site_statuses(database, seen, counted=counted)),
        transfers=in_transit(database),
        disk=_disk(database, folder, settings.storage, counted=counted),
    )


def _facts(database: sqlite3.Connection) -> dict[str, bytes]:
    """All but those that are as large as a model's layout."""
    small = "SELECT name, value FROM facts WHERE name != 'layout'"
    return {row["name"]: bytes(row["value"]) for row in database.execute(small)}


def _link(facts: Mapping[str, bytes]) -> tuple[str, dict[str, str]]:
    """What the service waits for, in its words and by kind; an older release knew no kinds."""
    if "link" not in facts:
        return "not connected yet", {}
    text, _, *kinds = json.loads(facts["link"])
    return text, dict(kinds[0]) if kinds else {}


def _ended(facts: Mapping[str, bytes]) -> dict[str, str]:
    return {"ended": facts["ended"].decode()} if facts.get("ended") else {}


def _usual_gap_s(database: sqlite3.Connection) -> float | None:
    """Between versions, the median of the last ones."""
    newest = database.execute("SELECT at FROM versions ORDER BY version DESC LIMIT ?", (LATELY + 1,))
    gaps = [later - earlier for later, earlier in pairwise(row["at"] for row in newest)]
    return median(gaps) if len(gaps) > 1 else None


def parameters_in(database: sqlite3.Connection, folder: Folder) -> int | None:
    """How many the model has, by the snapshot that is always kept."""
    digest = _one(database, "SELECT digest FROM versions WHERE version = 0")
    with suppress(FedqueueError):
        return map_model(folder.snapshot(digest or b""))[0].size
    return None


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


def _disk(database: sqlite3.Connection, folder: Folder, storage: Storage, *, counted: bool) -> Disk:
    removing = _one(database, "SELECT count(*) FROM pragma_table_info('updates') WHERE name = 'removed'")
    kept = "SELECT coalesce(sum(payload_bytes), 0) FROM updates WHERE NOT removed"
    anchor = _one(database, "SELECT value FROM facts WHERE name = 'anchor'")
    return Disk(
        used_bytes=used_bytes(folder.path) if counted else 0,
        free_bytes=free_bytes(folder.path),
        payload_bytes=_one(database, kept) if removing and counted else 0,
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
