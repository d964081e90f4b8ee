"""What outlives a process, its databases and its key, made so that a schedule is cheap and follows from its seed.

In memory a database stays open over a kill, which rolls back what was not committed, as opening the file again would.
Signatures are keyed hashes: they tell a damaged message from a whole one, which is all that is asked of them here.
"""

import hashlib
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from aggregator.journal import Enrolled, Journal
from aggregator.journal_tables import SCHEMA as JOURNAL_SCHEMA
from aggregator.journal_tables import VERSION as JOURNAL_VERSION
from broker.database import open_database
from broker.identity import PrivateKey, PublicKey
from broker.memory import MemoryBroker
from site_worker.outbox import Outbox
from site_worker.outbox_tables import SCHEMA as OUTBOX_SCHEMA
from site_worker.outbox_tables import VERSION as OUTBOX_VERSION
from tests.federation.fuse import Fuse


class Disk:
    """The databases of all processes by path: files, or kept in memory."""

    def __init__(self, *, in_memory: bool = False) -> None:
        self.in_memory = in_memory
        self._kept: dict[Path, sqlite3.Connection] = {}

    def open(self, path: Path, schema: str, version: int) -> sqlite3.Connection:
        """A process opens its database."""
        if not self.in_memory:
            return open_database(path, schema, version=version)
        if path not in self._kept:
            self._kept[path] = _copied(schema, version)
        return self._kept[path]

    def shut(self, database: sqlite3.Connection) -> None:
        """The process has ended."""
        if not self.in_memory:
            database.close()
        elif database.in_transaction:
            database.execute("ROLLBACK")

    def close(self) -> None:
        """Throw away what is in memory."""
        for database in self._kept.values():
            database.close()


@cache
def _empty(schema: str, version: int) -> bytes:
    database = open_database(":memory:", schema, version=version)
    try:
        return database.serialize()
    finally:
        database.close()


def _copied(schema: str, version: int) -> sqlite3.Connection:
    """An empty database of a schema, copied: that is faster than making its tables."""
    database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    database.deserialize(_empty(schema, version))
    database.row_factory = sqlite3.Row
    database.execute("PRAGMA journal_mode=MEMORY")
    return database


class SimJournal(Journal):
    """The production journal on a `Disk`; its commits may fail or be the last thing that its process does."""

    schema = JOURNAL_SCHEMA

    def __init__(self, path: Path, disk: Disk, fuse: Fuse) -> None:
        self.path, self._disk, self._fuse = path, disk, fuse
        self._database = disk.open(path, self.schema, JOURNAL_VERSION)

    def close(self) -> None:
        self._disk.shut(self._database)

    def commit(self) -> None:
        if self._database.in_transaction:
            self._fuse.before("commit")
            self._fuse.space("commit")
            super().commit()
            self._fuse.done("commit")

    def sites(self) -> dict[str, Enrolled]:
        return {name: replace(one, key=CheapPublicKey(one.key.raw)) for name, one in super().sites().items()}


class SimOutbox(Outbox):
    """The production outbox on a `Disk`, with an incarnation that follows from its name."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self.path, self._disk = path, disk
        self._begin(disk.open(path, OUTBOX_SCHEMA, OUTBOX_VERSION), hashlib.sha256(path.name.encode()).digest()[:16])

    def close(self) -> None:
        self._disk.shut(self._database)

    def kept_payloads(self) -> int:
        """Rows of payloads of updates not freed yet."""
        query = "SELECT count(*) FROM payloads WHERE sequence IN (SELECT sequence FROM updates)"
        (count,) = self._database.execute(query).fetchone()
        return int(count)

    def rows(self) -> list[sqlite3.Row]:
        """Every update ever made."""
        return self._database.execute("SELECT sequence, state, reason, payload_digest FROM updates").fetchall()


def _mark(raw: bytes, message: bytes) -> bytes:
    return hashlib.blake2b(message, key=raw, digest_size=64).digest()


@dataclass(frozen=True)
class CheapPublicKey(PublicKey):
    """Verifies what the `CheapKey` with the same bytes has signed."""

    def verifies(self, signature: bytes, message: bytes) -> bool:
        return signature == _mark(self.raw, message)


class CheapKey(PrivateKey):
    """A key that follows from a name, and signs in a microsecond."""

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "raw", hashlib.sha256(name.encode()).digest())

    raw: bytes

    @cached_property
    def public(self) -> PublicKey:
        return CheapPublicKey(self.raw)

    def sign(self, message: bytes) -> bytes:
        return _mark(self.raw, message)


class SimBroker(MemoryBroker):
    """The in-memory broker, looked at after every step."""

    def over(self, limits: Iterable[tuple[str, float, float]]) -> str:
        """The first of the queues with more ready messages or bytes than its limits, "" if there is none."""
        stores = self._stores
        for queue, length, size in limits:
            store: Any = stores.get(queue)
            if store is not None and (len(store._ready) > length or store._ready_bytes > size):
                return f"{len(store)} messages, {store._ready_bytes} bytes ready in {queue}"
        return ""
