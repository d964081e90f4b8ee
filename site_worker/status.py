"""What the outbox says of a site: for `status`, for the live view, for the ledger. Reads only, needs no torch."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from broker.database import open_readonly
from broker.folderlock import running_process
from broker.room import free_bytes, full_disk, used_bytes
from site_worker.outbox_tables import PARAMETERS
from site_worker.settings import Folder

FIRST: Final = "waiting for the first announcement"  # how details read that tell no trouble
COUNTS: Final = "SELECT state, count(*) FROM updates GROUP BY state"
WAITING: Final = "waiting: "  # how those begin that tell of the broker


@dataclass(frozen=True)
class Newest:
    """How the newest update was written: see site_worker/compression.py; None what an older release has not noted.

    `smaller` is how many times smaller it is than 4 bytes a parameter.
    """

    choice: str
    smaller: float | None
    error: float | None
    backlog: float | None


@dataclass(frozen=True)
class Status:
    """A site as its own worker last noted.

    `state` is starting, waiting, idle, fetching, training, resting or stopped; failed if it ended with `detail`, where
    `denied` says that the broker refuses its account for good. `refusal` is why its newest settled update was refused,
    None if that was accepted.
    """

    site: str
    running: bool
    state: str
    version: int | None
    detail: str
    since: float
    waiting: int
    accepted: int
    refused: int
    used_bytes: int = 0
    free_bytes: int = 0
    disk_full: str | None = None
    newest: Newest | None = None
    denied: bool = False
    refusal: str | None = None


def read_status(folder: Folder, *, counted: bool = True) -> Status:
    """The status of the worker in `folder`, running or not.

    Not `counted`, for who looks often, what is counted over the whole outbox or folder is 0: updates, `used_bytes`.
    """
    running = running_process(folder.path) is not None
    database = open_readonly(folder.outbox_file)
    try:
        activity = database.execute("SELECT * FROM activity").fetchone()
        counts = dict(database.execute(COUNTS).fetchall()) if counted else {}
        newest, refusal = _newest(database), _refusal(database)
        denied = database.execute("SELECT value FROM facts WHERE name = 'denied'").fetchone()
    finally:
        database.close()
    telling = activity is not None and (running or activity["state"] == "failed")
    return Status(
        site=folder.settings().site,
        running=running,
        state=activity["state"] if telling else "stopped",
        version=activity["version"] if activity else None,
        detail=activity["detail"] if telling else "",
        since=activity["since"] if activity else 0.0,
        waiting=counts.get("waiting", 0),
        accepted=counts.get("accepted", 0),
        refused=counts.get("refused", 0),
        used_bytes=used_bytes(folder.path) if counted else 0,
        free_bytes=free_bytes(folder.path),
        disk_full=full_disk(folder.path),
        newest=newest,
        denied=telling and activity["state"] == "failed" and denied is not None and bool(denied["value"]),
        refusal=refusal,
    )


def _newest(database: sqlite3.Connection) -> Newest | None:
    row = database.execute("SELECT * FROM updates ORDER BY sequence DESC LIMIT 1").fetchone()
    if row is None:
        return None
    known = database.execute("SELECT value FROM facts WHERE name = ?", (PARAMETERS,)).fetchone()
    smaller = 4 * int(known["value"]) / row["payload_bytes"] if known and row["payload_bytes"] else None
    return Newest(row["choice"] or row["codec"], smaller, row["error"], row["backlog"])


def _refusal(database: sqlite3.Connection) -> str | None:
    settled = "SELECT state, reason FROM updates WHERE state != 'waiting' ORDER BY sequence DESC LIMIT 1"
    row = database.execute(settled).fetchone()
    return row["reason"] if row is not None and row["state"] == "refused" else None


def read_outbox(path: Path, *, last: int) -> list[dict[str, Any]]:
    """The newest updates of an outbox, oldest of them first, without their payloads."""
    database = open_readonly(path)
    try:
        rows = database.execute(
            "SELECT sequence, base_version, examples, steps, codec, payload_bytes, made_at, training_s, published,"
            " state, reason FROM updates ORDER BY sequence DESC LIMIT ?",
            (last,),
        ).fetchall()
    finally:
        database.close()
    return [dict(row) for row in reversed(rows)]
