"""Updates that come in several parts: each part is journaled as it arrives, and stays where it is once all are there.

A site has one unfinished update at a time; parts of its others make room. An accepted update names its transfer, so
that a payload of gigabytes is neither joined nor copied: it is read part by part, from any byte on.
"""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from broker.codecs import Bytes
from broker.database import storing
from broker.messages import UpdatePart, part_at

SCHEMA: Final = """
CREATE TABLE unfinished (transfer INTEGER PRIMARY KEY AUTOINCREMENT, site TEXT NOT NULL, incarnation BLOB NOT NULL,
    sequence INTEGER NOT NULL, parts INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,
    began_at REAL NOT NULL DEFAULT 0, last_at REAL NOT NULL DEFAULT 0, arrived INTEGER NOT NULL DEFAULT 0,
    UNIQUE (site, incarnation, sequence));
CREATE TABLE parts (transfer INTEGER NOT NULL, part INTEGER NOT NULL, body BLOB NOT NULL, UNIQUE (transfer, part))
"""
Key = tuple[str, bytes, int]


@dataclass(frozen=True)
class Payload:
    """An encoded update; `pieces` are its bytes from a position on, in order, in pieces of at most a part."""

    codec: str
    pieces: Callable[[int], Iterator[Bytes]] = field(repr=False)


class Transfers:
    """See the module's docstring. `path` is for what is said of a disk that will not have it."""

    def __init__(self, database: sqlite3.Connection, path: str) -> None:
        self._database, self._path = database, path

    # ---- writing, inside a transaction

    def keep(self, site: str, update: UpdatePart, body: bytes, *, at: float) -> None:
        """Keep one part of an update until all are there."""
        key = (site, update.incarnation, update.sequence)
        with storing(self._path):
            self._drop_where("site = ? AND (incarnation != ? OR sequence != ?)", key)
            self._database.execute(
                "INSERT OR IGNORE INTO unfinished (site, incarnation, sequence, parts, bytes, began_at)"
                " VALUES (?,?,?,?,?,?)",
                (*key, update.parts, update.payload_bytes, at),
            )
            added = self._database.execute(
                "INSERT OR IGNORE INTO parts (transfer, part, body) SELECT transfer, ?, ? FROM unfinished"
                " WHERE site = ? AND incarnation = ? AND sequence = ?",
                (update.part, body, *key),
            )
            self._database.execute(
                "UPDATE unfinished SET last_at = ?, arrived = arrived + ?"
                " WHERE site = ? AND incarnation = ? AND sequence = ?",
                (at, added.rowcount, *key),
            )

    def finish(self, site: str, incarnation: bytes, sequence: int) -> int:
        """The transfer of an update that is accepted now; its parts stay."""
        transfer = self.of(site, incarnation, sequence)
        assert transfer is not None
        self._database.execute("DELETE FROM unfinished WHERE transfer = ?", (transfer,))
        return transfer

    def drop(self, site: str, incarnation: bytes, sequence: int) -> None:
        """Forget what has come of one update."""
        self._drop_where("site = ? AND incarnation = ? AND sequence = ?", (site, incarnation, sequence))

    def drop_all(self, site: str) -> None:
        """Forget what has come of a site's unfinished update."""
        self._drop_where("site = ?", (site,))

    def remove(self, transfer: int) -> None:
        """Remove the payload of an accepted update."""
        self._database.execute("DELETE FROM parts WHERE transfer = ?", (transfer,))

    # ---- reading

    def of(self, site: str, incarnation: bytes, sequence: int) -> int | None:
        """The transfer of an unfinished update, None if nothing has come of it."""
        row = self._database.execute(
            "SELECT transfer FROM unfinished WHERE site = ? AND incarnation = ? AND sequence = ?",
            (site, incarnation, sequence),
        ).fetchone()
        return None if row is None else int(row["transfer"])

    def unfinished(self, site: str, incarnation: bytes) -> tuple[int, set[int]] | None:
        """The sequence of a site's unfinished update and the numbers of the parts that are here."""
        row = self._database.execute(
            "SELECT transfer, sequence FROM unfinished WHERE site = ? AND incarnation = ?", (site, incarnation)
        ).fetchone()
        return None if row is None else (int(row["sequence"]), self.parts(row["transfer"]))

    def parts(self, transfer: int) -> set[int]:
        """The numbers of the parts that are here."""
        rows = self._database.execute("SELECT part FROM parts WHERE transfer = ?", (transfer,))
        return {row["part"] for row in rows}

    def part(self, transfer: int, part: int) -> bytes | None:
        """One part, None if it is not here."""
        row = self._database.execute(
            "SELECT body FROM parts WHERE transfer = ? AND part = ?", (transfer, part)
        ).fetchone()
        return None if row is None else bytes(row["body"])

    def payload(self, codec: str, transfer: int) -> Payload:
        """All parts as one payload."""

        def pieces(position: int) -> Iterator[Bytes]:
            part, skip = part_at(position)
            while body := self.part(transfer, part):
                yield memoryview(body)[skip:]
                part, skip = part + 1, 0

        return Payload(codec, pieces)

    def _drop_where(self, condition: str, values: tuple[object, ...]) -> None:
        rows = self._database.execute(f"SELECT transfer FROM unfinished WHERE {condition}", values)  # noqa: S608 - ours
        for row in rows.fetchall():
            self._database.execute("DELETE FROM parts WHERE transfer = ?", (row["transfer"],))
            self._database.execute("DELETE FROM unfinished WHERE transfer = ?", (row["transfer"],))
