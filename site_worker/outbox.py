"""The outbox: everything this site computed, on disk before it is published, freed only by the aggregator's receipt.

An update's payload, the next error-feedback residual, the tensors that stay at the site and the sequence number are
stored in one transaction, so none of them runs ahead of what was stored, and a number is never used twice. The light
row of an update stays for ever: it is this site's record of what left the hospital.

The outbox belongs to one process; others open it read-only.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from broker.database import open_database, open_readonly, storing
from broker.messages import parts_of

Vector = NDArray[np.float32]
State = Literal["waiting", "accepted", "refused"]
VERSION: Final = 2
_LOCAL: Final = "CREATE TABLE local (chunk INTEGER PRIMARY KEY, body BLOB NOT NULL)"
SCHEMA: Final = f"""
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE updates (
    sequence INTEGER PRIMARY KEY, base_version INTEGER NOT NULL, base_digest BLOB NOT NULL,
    examples INTEGER NOT NULL, steps INTEGER NOT NULL, held_out INTEGER NOT NULL, metrics TEXT NOT NULL,
    codec TEXT NOT NULL, payload_bytes INTEGER NOT NULL, payload_digest BLOB NOT NULL,
    made_at REAL NOT NULL, training_s REAL NOT NULL,
    published INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL DEFAULT 'waiting', reason TEXT, settled_at REAL);
CREATE INDEX updates_by_state ON updates (state);
CREATE TABLE payloads (sequence INTEGER NOT NULL, part INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (sequence, part)) WITHOUT ROWID;
CREATE TABLE residual (chunk INTEGER PRIMARY KEY, body BLOB NOT NULL);
{_LOCAL};
CREATE TABLE activity (id INTEGER PRIMARY KEY CHECK (id = 1), state TEXT NOT NULL, version INTEGER,
    detail TEXT NOT NULL, since REAL NOT NULL)
"""
UPGRADES: Final = {1: _LOCAL}
_LAST_BASE: Final = "SELECT coalesce(max(base_version), -1) FROM updates WHERE state != 'refused'"
_RESIDUAL_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class Made:
    """An update as it goes into the outbox: what the wire will say of it, its payload, and what stays at the site.

    `local` are the tensors that do not travel, as they are after this round (site_worker/model.py), as safetensors.
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
    payload: bytes = field(repr=False, default=b"")
    local: bytes = field(repr=False, default=b"")

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
    """See the module's docstring. Reads may come from another thread than writes.

    A new outbox gets an `incarnation` of its own: 16 random bytes, or those given.
    """

    def __init__(self, path: Path | str, *, incarnation: bytes | None = None) -> None:
        self.path = path
        self._database = open_database(path, SCHEMA, version=VERSION, upgrades=UPGRADES)
        self.incarnation = self._fact("incarnation", lambda: incarnation or os.urandom(16))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _fact(self, name: str, make: Callable[[], bytes]) -> bytes:
        with storing(str(self.path)):
            self._database.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, make()))
        return bytes(self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()["value"])

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with storing(str(self.path)):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    # ---- writing: each method is one transaction

    def store(self, made: Made, residual: Vector | None) -> None:
        """Keep an update with the residual and local tensors that follow from it; a second time changes nothing."""
        with self._transaction() as database:
            added = database.execute(
                "INSERT OR IGNORE INTO updates (sequence, base_version, base_digest, examples, steps, held_out,"
                " metrics, codec, payload_bytes, payload_digest, made_at, training_s) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
                (made.sequence, made.base_version, made.base_digest, made.examples, made.steps, made.held_out,
                 json.dumps(dict(made.metrics)), made.codec, made.payload_bytes, made.payload_digest, made.made_at,
                 made.training_s),
            )  # fmt: skip
            if not added.rowcount:
                return
            rows = ((made.sequence, part, body) for part, body in enumerate(parts_of(made.payload)))
            database.executemany("INSERT INTO payloads VALUES (?,?,?)", rows)
            database.execute("DELETE FROM residual")
            if residual is not None:
                database.executemany("INSERT INTO residual VALUES (?,?)", _chunks(residual))
            database.execute("DELETE FROM local")
            database.executemany(
                "INSERT INTO local VALUES (?,?)", enumerate(parts_of(made.local) if made.local else ())
            )

    def settle(self, settled: Iterable[Settled], *, at: float) -> None:
        """Free the payloads of what a receipt settles."""
        with self._transaction() as database:
            for one in settled:
                database.execute(
                    "UPDATE updates SET state = ?, reason = ?, settled_at = ? WHERE sequence = ? AND state = 'waiting'",
                    (one.state, one.reason, at, one.sequence),
                )
                database.execute("DELETE FROM payloads WHERE sequence = ?", (one.sequence,))

    def mark(self, sequences: Iterable[int], *, published: bool) -> None:
        """Note that the broker has confirmed updates, or that they were lost there and must be published again."""
        with self._transaction() as database:
            rows = ((published, sequence) for sequence in sequences)
            database.executemany("UPDATE updates SET published = ? WHERE sequence = ?", rows)

    def next_nonce(self, nonce: int) -> None:
        """Keep the number of the newest hello: it only grows, also over restarts."""
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO facts VALUES ('nonce', ?)", (str(nonce).encode(),))

    def note_seen(self, version: int, digest: bytes) -> None:
        """Keep the highest version that was announced with a valid signature, and its digest."""
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO facts VALUES ('seen', ?)", (f"{version} {digest.hex()}".encode(),))

    def note_activity(self, state: str, version: int | None, detail: str, *, at: float) -> None:
        """Keep what the worker is doing, for `status`."""
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO activity VALUES (1,?,?,?,?)", (state, version, detail, at))

    # ---- reading

    def update(self, sequence: int) -> Made:
        """An update's row, without its payload."""
        row = self._database.execute("SELECT * FROM updates WHERE sequence = ?", (sequence,)).fetchone()
        return Made(
            row["sequence"], row["base_version"], row["base_digest"], row["examples"], row["steps"], row["held_out"],
            tuple(json.loads(row["metrics"]).items()), row["codec"], row["payload_digest"], row["made_at"],
            row["training_s"], row["payload_bytes"],
        )  # fmt: skip

    def part(self, sequence: int, part: int) -> bytes | None:
        """One part of a payload, None once it is settled."""
        row = self._database.execute(
            "SELECT body FROM payloads WHERE sequence = ? AND part = ?", (sequence, part)
        ).fetchone()
        return None if row is None else bytes(row["body"])

    def waiting(self) -> dict[int, tuple[int, bool]]:
        """Unsettled sequences in order, with their payload's bytes and whether the broker has confirmed them."""
        rows = self._database.execute(
            "SELECT sequence, payload_bytes, published FROM updates WHERE state = 'waiting' ORDER BY sequence"
        )
        return {row["sequence"]: (row["payload_bytes"], bool(row["published"])) for row in rows}

    def last_sequence(self) -> int:
        """The newest sequence ever used, 0 if none."""
        (last,) = self._database.execute("SELECT coalesce(max(sequence), 0) FROM updates").fetchone()
        return int(last)

    def newest_times(self, most: int) -> list[float]:
        """When the newest updates were made, at most so many, oldest first."""
        rows = self._database.execute("SELECT made_at FROM updates ORDER BY sequence DESC LIMIT ?", (most,))
        return [row["made_at"] for row in rows][::-1]

    def last_base(self) -> int:
        """The newest version trained from and not refused, -1 if none."""
        (last,) = self._database.execute(_LAST_BASE).fetchone()
        return int(last)

    def nonce(self) -> int:
        """The number of the newest hello."""
        return int(self._fact("nonce", lambda: b"0"))

    def seen(self) -> tuple[int, bytes]:
        """The highest version announced so far and its digest; (-1, b"") if none."""
        version, _, digest = self._fact("seen", lambda: b"-1 ").decode().partition(" ")
        return int(version), bytes.fromhex(digest)

    def residual(self, size: int) -> Vector:
        """The error-feedback residual, shape (size,); zeros at first, or when the model has another size."""
        rows = self._database.execute("SELECT body FROM residual ORDER BY chunk").fetchall()
        kept = np.frombuffer(b"".join(row["body"] for row in rows), dtype="<f4").astype(np.float32)
        return kept if len(kept) == size else np.zeros(size, dtype=np.float32)


def read_last_base(path: Path) -> int:
    """As `last_base`, of a file that another connection writes to; -1 if there is none."""
    return int(_read(path, _LAST_BASE)[0][0]) if path.is_file() else -1


def read_local(path: Path) -> bytes:
    """`local` of the newest update stored, from a file that another connection writes to; b"" if there is none."""
    return b"".join(row[0] for row in _read(path, "SELECT body FROM local ORDER BY chunk")) if path.is_file() else b""


def _read(path: Path, query: str) -> list[sqlite3.Row]:
    database = open_readonly(path)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


def _chunks(vector: Vector) -> Iterable[tuple[int, bytes]]:
    for chunk, start in enumerate(range(0, len(vector), _RESIDUAL_CHUNK)):
        yield chunk, vector[start : start + _RESIDUAL_CHUNK].astype("<f4").tobytes()
