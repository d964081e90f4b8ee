"""The outbox: everything this site computed, on disk before it is published, freed only by the aggregator's receipt.

An update's payload, the next error-feedback residual, the tensors that stay at the site and the sequence number become
true in one transaction, so none of them runs ahead of what was stored, and a number is never used twice. The light
row of an update stays for ever: it is this site's record of what left the hospital.

What is large is written before, row by row, as a draft under the number that the update will have: rows with a number
that has no update are a draft, and count for nothing. So the transaction itself copies nothing large. The residual is
that of the newest update. What is no longer needed is deleted in small steps, and a draft that was never stored goes
when the outbox is opened or the next draft begins.

The outbox belongs to one process; others open it read-only.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from broker.database import open_database, open_readonly, storing
from site_worker.draft import Draft, Residual, Row
from site_worker.outbox_tables import DRAFTS, FORMER, INSERT, PARAMETERS, SCHEMA, SETTLED, UPGRADES, VERSION
from site_worker.past import Past

State = Literal["waiting", "accepted", "refused"]
NEWEST: Final = "SELECT coalesce(max(sequence), 0) FROM updates"
LAST_BASE: Final = "SELECT coalesce(max(base_version), -1) FROM updates WHERE state != 'refused'"
LOCAL: Final = "SELECT body FROM local WHERE sequence = (SELECT coalesce(max(sequence), 0) FROM updates) ORDER BY chunk"


@dataclass(frozen=True)
class Made:
    """What the outbox, and the wire, say of an update.

    `error` is what the codec left out, relative to what it was given (Euclidean norms); None if nobody knows.
    """

    sequence: int
    base_version: int
    base_digest: bytes
    examples: int
    steps: int
    held_out: int
    metrics: tuple[tuple[str, float], ...]
    codec: str
    payload_digest: bytes
    made_at: float
    training_s: float
    payload_bytes: int
    error: float | None = None
    choice: str = ""
    backlog: float = 0.0

    def numbered(self, sequence: int) -> "Made":
        """The same update with its place in the site's sequence."""
        return replace(self, sequence=sequence)


@dataclass(frozen=True)
class Settled:
    """What a receipt says of one sequence."""

    sequence: int
    state: State
    reason: str | None = None


class Outbox:
    """See the module's docstring. Thread-safe: the trainer writes a draft while the loop's effects are stored.

    A new outbox gets an `incarnation` of its own: 16 random bytes, or those given.
    """

    def __init__(self, path: Path | str, *, incarnation: bytes | None = None) -> None:
        self.path = path
        self._begin(open_database(path, SCHEMA, version=VERSION, upgrades=UPGRADES), incarnation)

    def _begin(self, database: sqlite3.Connection, incarnation: bytes | None) -> None:
        self._database, self._lock = database, threading.RLock()
        self.incarnation = self._fact("incarnation", lambda: incarnation or os.urandom(16))
        self._delete(*DRAFTS, *SETTLED, *FORMER)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _fact(self, name: str, make: Callable[[], bytes]) -> bytes:
        with self._transaction() as database:
            database.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, make()))
        return bytes(self._rows("SELECT value FROM facts WHERE name = ?", name)[0]["value"])

    def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._database.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, storing(str(self.path)):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def _delete(self, *steps: str) -> None:
        """Repeat each statement, a transaction each time, until it finds nothing more."""
        for step in steps:
            while self._deleted(step):
                pass

    def _deleted(self, step: str) -> int:
        with self._transaction() as database:
            return database.execute(step).rowcount

    # ---- an update: first a draft, row by row, then one transaction

    def draft(self, size: int, *, patiently: Callable[[Callable[[], None]], None] = lambda write: write()) -> Draft:
        """Begin the next update, of `size` coordinates; a draft that was not stored is gone.

        `patiently` is given each thing to write, may try it again after a StorageError, and must do so in this thread.
        """
        sequence = self.last_sequence() + 1

        def write(rows: Sequence[Row]) -> None:
            with self._transaction() as database:
                for table, number, body in rows:
                    database.execute(INSERT[table], (sequence, number, body))

        def begin() -> None:
            self._delete(*DRAFTS)
            with self._transaction() as database:
                database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (PARAMETERS, str(size).encode()))

        patiently(begin)
        return Draft(self.residual(size), lambda rows: patiently(lambda: write(rows)), past=self.past())

    def store(self, made: Made) -> None:
        """Make the draft of this number an update, with its residual and local tensors; a second time changes nothing.

        ValueError if the draft is not there as it was made.
        """
        with self._transaction() as database:
            added = database.execute(
                "INSERT OR IGNORE INTO updates (sequence, base_version, base_digest, examples, steps, held_out,"
                " metrics, codec, payload_bytes, payload_digest, made_at, training_s, error, choice, backlog)"
                " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (made.sequence, made.base_version, made.base_digest, made.examples, made.steps, made.held_out,
                 json.dumps(dict(made.metrics)), made.codec, made.payload_bytes, made.payload_digest, made.made_at,
                 made.training_s, made.error, made.choice or made.codec, made.backlog),
            )  # fmt: skip
            lengths = "SELECT coalesce(sum(length(body)), 0) FROM payloads WHERE sequence = ?"
            (drafted,) = database.execute(lengths, (made.sequence,)).fetchone()
            if added.rowcount and drafted != made.payload_bytes:
                raise ValueError(f"The draft of update {made.sequence} has {drafted} bytes of {made.payload_bytes}.")
        self._delete(*FORMER)

    # ---- writing: each method is one transaction

    def settle(self, settled: Iterable[Settled], *, at: float) -> None:
        """Free the payloads of what a receipt settles."""
        with self._transaction() as database:
            for one in settled:
                database.execute(
                    "UPDATE updates SET state = ?, reason = ?, settled_at = ? WHERE sequence = ? AND state = 'waiting'",
                    (one.state, one.reason, at, one.sequence),
                )
        self._delete(*SETTLED)

    def mark(self, sequences: Iterable[int], *, published: bool, took_s: float | None = None) -> None:
        """Note that the broker has confirmed updates, which took so long, or that they must be published anew."""
        with self._transaction() as database:
            rows = ((published, published, took_s, sequence) for sequence in sequences)
            database.executemany(
                "UPDATE updates SET published = ?, sent = sent * ?, took_s = coalesce(?, took_s) WHERE sequence = ?",
                rows,
            )

    def note_sent(self, sequence: int, parts: int) -> None:
        """Note that the broker has confirmed the first `parts` parts of an update."""
        with self._transaction() as database:
            database.execute("UPDATE updates SET sent = ? WHERE sequence = ?", (parts, sequence))

    def next_nonce(self, nonce: int) -> None:
        """Keep the number of the newest hello: it only grows, also over restarts."""
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO facts VALUES ('nonce', ?)", (str(nonce).encode(),))

    def note_seen(self, version: int, digest: bytes) -> None:
        """Keep the highest version that was announced with a valid signature, and its digest."""
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO facts VALUES ('seen', ?)", (f"{version} {digest.hex()}".encode(),))

    def note_end(self, *, denied: bool) -> None:
        """Keep whether the broker has refused this account for good."""
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO facts VALUES ('denied', ?)", (b"1" if denied else b"",))

    def note_activity(self, state: str, version: int | None, detail: str, *, at: float) -> None:
        """Keep what the worker is doing, for `status`."""
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO activity VALUES (1,?,?,?,?)", (state, version, detail, at))

    # ---- reading

    def update(self, sequence: int) -> Made:
        """An update's row, without its payload."""
        (row,) = self._rows("SELECT * FROM updates WHERE sequence = ?", sequence)
        return Made(
            row["sequence"], row["base_version"], row["base_digest"], row["examples"], row["steps"], row["held_out"],
            tuple(json.loads(row["metrics"]).items()), row["codec"], row["payload_digest"], row["made_at"],
            row["training_s"], row["payload_bytes"], row["error"], row["choice"] or row["codec"], row["backlog"] or 0.0,
        )  # fmt: skip

    def part(self, sequence: int, part: int) -> bytes | None:
        """One part of a payload, None once it is settled."""
        rows = self._rows("SELECT body FROM payloads WHERE sequence = ? AND part = ?", sequence, part)
        return bytes(rows[0]["body"]) if rows else None

    def sent(self, sequence: int) -> int:
        """How many parts of an update, from the first on, the broker has confirmed."""
        return int(self._rows("SELECT sent FROM updates WHERE sequence = ?", sequence)[0]["sent"])

    def past(self) -> Past | None:
        """How the newest update came to be, and how fast the newest that was published went."""
        newest = self._rows("SELECT choice, backlog, training_s FROM updates ORDER BY sequence DESC LIMIT 1")
        rates = self._rows(
            "SELECT payload_bytes / took_s AS rate FROM updates WHERE took_s > 0 ORDER BY sequence DESC LIMIT 1"
        )
        if not newest or newest[0]["choice"] is None:
            return None
        rate = rates[0]["rate"] if rates else None
        return Past(newest[0]["choice"], newest[0]["backlog"] or 0.0, newest[0]["training_s"], rate)

    def waiting(self) -> dict[int, tuple[int, bool]]:
        """Unsettled sequences in order, with their payload's bytes and whether the broker has confirmed them."""
        rows = self._rows(
            "SELECT sequence, payload_bytes, published FROM updates WHERE state = 'waiting' ORDER BY sequence"
        )
        return {row["sequence"]: (row["payload_bytes"], bool(row["published"])) for row in rows}

    def last_sequence(self) -> int:
        """The newest sequence ever used, 0 if none."""
        return int(self._rows(NEWEST)[0][0])

    def newest_times(self, most: int) -> list[float]:
        """When the newest updates were made, at most so many, oldest first."""
        rows = self._rows("SELECT made_at FROM updates ORDER BY sequence DESC LIMIT ?", most)
        return [row["made_at"] for row in rows][::-1]

    def last_base(self) -> int:
        """The newest version trained from and not refused, -1 if none."""
        return int(self._rows(LAST_BASE)[0][0])

    def nonce(self) -> int:
        """The number of the newest hello."""
        return int(self._fact("nonce", lambda: b"0"))

    def seen(self) -> tuple[int, bytes]:
        """The highest version announced so far and its digest; (-1, b"") if none."""
        version, _, digest = self._fact("seen", lambda: b"-1 ").decode().partition(" ")
        return int(version), bytes.fromhex(digest)

    def residual(self, size: int) -> Residual:
        """What the newest update has left out; zeros if that is nothing, or the model has another size."""
        return self._residual_of(int(self._rows(NEWEST)[0][0]), size)

    def _residual_of(self, sequence: int, size: int) -> Residual:
        lengths = self._rows("SELECT length(body) FROM residual WHERE sequence = ? ORDER BY chunk", sequence)
        body = "SELECT body FROM residual WHERE sequence = ? AND chunk = ?"
        fits = sum(row[0] for row in lengths) == 4 * size
        return Residual(
            size,
            lengths[0][0] // 4 if lengths and fits else 0,
            lambda chunk: bytes(self._rows(body, sequence, chunk)[0]["body"]),
        )


def read_last_base(path: Path) -> int:
    """As `last_base`, of a file that another connection writes to; -1 if there is none."""
    return int(_read(path, LAST_BASE)[0][0]) if path.is_file() else -1


def read_local(path: Path) -> bytes:
    """What stays at the site after the newest update, from a file that another connection writes to; b"" if nothing."""
    return b"".join(row[0] for row in _read(path, LOCAL)) if path.is_file() else b""


def _read(path: Path, query: str) -> list[sqlite3.Row]:
    database = open_readonly(path)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()
