"""What is on its way: updates of which some parts are here, and models of which some parts are in the stream."""

import sqlite3
from dataclasses import dataclass

from broker.messages import part_bounds, part_count
from broker.progress import Progress


@dataclass(frozen=True)
class Transit:
    """One transfer in several parts: from a site, or of a version to all sites; `progress` for people."""

    what: str
    site: str | None
    parts: int
    arrived: int
    payload_bytes: int
    progress: str


def in_transit(database: sqlite3.Connection) -> tuple[Transit, ...]:
    """All of them; none in a journal that an older release has written."""
    known = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    if not {"unfinished", "publications"} <= known:
        return ()
    return (*_received(database), *_sent(database))


def _received(database: sqlite3.Connection) -> list[Transit]:
    rows = database.execute("SELECT * FROM unfinished ORDER BY site")
    return [
        Transit(
            f"update {row['sequence']}", row["site"], row["parts"], row["arrived"], row["bytes"],
            _progress(row["bytes"], row["arrived"], began=row["began_at"], last=row["last_at"]),
        )
        for row in rows
    ]  # fmt: skip


def _sent(database: sqlite3.Connection) -> list[Transit]:
    newest = "SELECT * FROM publications WHERE version = (SELECT max(version) FROM publications)"
    found = []
    for row in database.execute(newest):
        parts = part_count(row["payload_bytes"])
        if 0 < row["confirmed"] < parts:
            what = f"version {row['version']}{'' if row['base'] < 0 else ', what has changed'}"
            text = _progress(row["payload_bytes"], row["confirmed"], began=row["at"], last=None)
            found.append(Transit(what, None, parts, row["confirmed"], row["payload_bytes"], text))
    return found


def _progress(total: int, parts: int, *, began: float, last: float | None) -> str:
    """Without `last`, how fast it goes is not known."""
    first, size = part_bounds(0)[1], part_bounds(0)[1]
    progress = Progress(total, began, 0 if last is None else min(first, total))
    done = min(parts * size, total)
    progress.add(done - progress.done, now=began if last is None else last)
    return str(progress)
