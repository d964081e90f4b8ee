"""The journal: every accepted update, every version, every refusal, in one SQLite file people can open.

The model is a fold over table `updates` in the order of `ordinal`: version v is the model v-1 stepped with the updates
whose ordinals are above `through_ordinal` of v-1 and at most that of v (the view `merged` says it per update).
The row of a version is there when it is decided on, with the update that made it due; its `digest` is empty until its
vectors are there too, which the next version waits for.
Acceptance and deduplication are the same insert: (site, incarnation, sequence) is unique.

The journal belongs to one process; others open it read-only. Methods that write run inside the caller's transaction.
"""

import json
import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from aggregator.journal_tables import SCHEMA, UPGRADES, VERSION
from aggregator.publications import Publications
from aggregator.transfers import Payload, Transfers
from broker.database import open_database, storing
from broker.errors import StorageError, UsageError
from broker.identity import PublicKey
from broker.messages import UpdatePart

_NAMELESS_REFUSALS_KEPT: Final = 10_000


@dataclass(frozen=True)
class Enrolled:
    """A site of the registry: the key its messages must be signed with, the broker account they must come from."""

    site: str
    key: PublicKey
    account: str | None


@dataclass(frozen=True)
class Accepted:
    """An update as admitted: its place in the fold, its `weight` s(staleness), the L2 `norm` of its delta.

    `payload` is b"" where the update came in several parts: these are kept as they are (aggregator/transfers.py).
    """

    ordinal: int
    site: str
    update: UpdatePart
    payload: bytes
    staleness: int
    weight: float
    norm: float
    at: float


@dataclass(frozen=True)
class VersionRow:
    """A version of the model; `rule` is the aggregation that made it, as JSON.

    `digest` is b"" while the version is made. `state` is the digest of what the strategy keeps besides the model, where
    that was saved with a snapshot; None if it was not, or if it keeps nothing.
    """

    version: int
    digest: bytes
    through_ordinal: int
    updates: int
    reason: str
    rule: str
    at: float
    state: bytes | None = None


@dataclass(frozen=True)
class RuleRow:
    """The aggregation as JSON, decided while `version` was the newest; it makes the versions after that."""

    version: int
    rule: str
    at: float


@dataclass(frozen=True)
class Folded:
    """What a replay needs of an accepted update, besides its payload."""

    ordinal: int
    site: str
    sequence: int
    staleness: int
    examples: int
    base_version: int


class Journal:
    """See the module's docstring."""

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self._database = open_database(path, SCHEMA, version=VERSION, upgrades=UPGRADES)

    @cached_property
    def transfers(self) -> Transfers:
        """Updates in several parts; its methods that write run inside the caller's transaction too."""
        return Transfers(self._database, str(self.path))

    @cached_property
    def publications(self) -> Publications:
        """What has gone to the sites; its methods that write run inside the caller's transaction too."""
        return Publications(self._database, str(self.path))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def begin(self) -> None:
        """Start a transaction; the write lock is taken at once, so two aggregators on one folder show at once."""
        if not self._database.in_transaction:
            with storing(str(self.path)):
                self._database.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make everything since `begin` durable."""
        if self._database.in_transaction:
            with storing(str(self.path)):
                self._database.execute("COMMIT")

    def rollback(self) -> None:
        """Forget everything since `begin`."""
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")

    # ---- writing, inside a transaction

    def accept(self, row: Accepted) -> None:
        """Add an accepted update; parts that were kept of it are its payload from now on.

        An ordinal or a (site, incarnation, sequence) already there raises sqlite3.IntegrityError: the loop has let a
        duplicate pass, and stopping is better than counting it.
        """
        u = row.update
        with storing(str(self.path)):
            transfer = None
            if u.parts > 1:
                transfer = self.transfers.finish(row.site, u.incarnation, u.sequence)
            self._database.execute(
                "INSERT INTO updates (ordinal, site, incarnation, sequence, base_version, staleness, weight, examples,"
                " steps, held_out, metrics, norm, codec, payload_digest, payload, made_at, training_s, accepted_at,"
                " transfer, payload_bytes, error) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (row.ordinal, row.site, u.incarnation, u.sequence, u.base_version, row.staleness, row.weight,
                 u.examples, u.steps, u.held_out, json.dumps(dict(u.metrics)), row.norm, u.codec, u.payload_digest,
                 row.payload, u.made_at, u.training_s, row.at, transfer, u.payload_bytes, u.error),
            )  # fmt: skip

    def refuse(
        self, site: str, incarnation: bytes | None, sequence: int | None, *, reason: str, size: int, at: float
    ) -> None:
        """Add a refusal. Those without a sequence settle nothing, and only the newest are kept."""
        with storing(str(self.path)):
            added = self._database.execute(
                "INSERT OR IGNORE INTO refused (site, incarnation, sequence, reason, bytes, at) VALUES (?,?,?,?,?,?)",
                (site, incarnation, sequence, reason, size, at),
            )
            if sequence is None:
                self._database.execute(
                    "DELETE FROM refused WHERE sequence IS NULL AND id <= ?",
                    ((added.lastrowid or 0) - _NAMELESS_REFUSALS_KEPT,),
                )
            elif incarnation is not None:
                self.transfers.drop(site, incarnation, sequence)

    def add_version(self, row: VersionRow) -> None:
        """Add a version."""
        with storing(str(self.path)):
            self._database.execute(
                "INSERT INTO versions VALUES (?,?,?,?,?,?,?,?)",
                (row.version, row.digest, row.through_ordinal, row.updates, row.reason, row.rule, row.at, row.state),
            )

    def note_made(self, version: int, digest: bytes) -> None:
        """The vectors of a version are there."""
        with storing(str(self.path)):
            self._database.execute("UPDATE versions SET digest = ? WHERE version = ?", (digest, version))

    def note_state(self, version: int, digest: bytes) -> None:
        """What the strategy keeps was saved beside the snapshot of a version."""
        with storing(str(self.path)):
            self._database.execute("UPDATE versions SET state = ? WHERE version = ?", (digest, version))

    def add_rule(self, row: RuleRow) -> None:
        """Decide by which aggregation the versions after `row.version` are made."""
        with storing(str(self.path)):
            self._database.execute(
                "INSERT INTO rules (version, rule, at) VALUES (?,?,?)", (row.version, row.rule, row.at)
            )

    def note_site(self, site: str, **columns: object) -> None:
        """Update columns of a site's row."""
        names = ", ".join(f"{name} = ?" for name in columns)
        with storing(str(self.path)):
            self._database.execute(f"UPDATE sites SET {names} WHERE site = ?", (*columns.values(), site))  # noqa: S608 - names are ours

    def note_presence(self, site: str, *, present: bool, ready: int, at: float, changed: bool) -> None:
        """Note what the broker says of a site; a change is kept for the report."""
        self.note_site(site, present=present, ready=ready)
        if changed:
            with storing(str(self.path)):
                self._database.execute("INSERT INTO presence VALUES (?,?,?)", (at, site, present))

    def enrol(self, site: str, key: PublicKey, account: str | None, *, at: float) -> None:
        """Add a site to the registry; UsageError if it is there with another key."""
        self.check_key(site, key)
        with storing(str(self.path)):
            self._database.execute(
                "INSERT INTO sites (site, public_key, account, added_at) VALUES (?,?,?,?)"
                " ON CONFLICT (site) DO UPDATE SET account = excluded.account",
                (site, key.to_text(), account, at),
            )

    def remove(self, site: str) -> None:
        """Take a site out of the registry. Its accepted updates and refusals stay; parts of an unfinished one go."""
        with storing(str(self.path)):
            self._database.execute("DELETE FROM sites WHERE site = ?", (site,))
            self.transfers.drop_all(site)

    def check_key(self, site: str, key: PublicKey) -> None:
        """UsageError if the site is enrolled with another key."""
        known = self._database.execute("SELECT public_key FROM sites WHERE site = ?", (site,)).fetchone()
        if known is not None and known["public_key"] != key.to_text():
            raise UsageError(f"Site {site} is enrolled with another key; a site's key is never replaced silently.")

    def remove_payloads(self, *, through: int, but: Collection[int]) -> None:
        """Remove what updates with ordinals up to `through` carried, except those of `but`; their rows stay."""
        with storing(str(self.path)):
            rows = self._database.execute(
                "SELECT ordinal, transfer FROM updates WHERE ordinal <= ? AND NOT removed", (through,)
            ).fetchall()
            for row in rows:
                if row["ordinal"] in but:
                    continue
                if row["transfer"] is not None:
                    self.transfers.remove(row["transfer"])
                self._database.execute(
                    "UPDATE updates SET payload = x'', removed = 1 WHERE ordinal = ?", (row["ordinal"],)
                )

    def set_anchor(self, version: int) -> None:
        """Note that payloads were removed which only versions up to this one need."""
        self.set_fact("anchor", str(version).encode())

    def set_fact(self, name: str, value: bytes) -> None:
        """Keep a fact of the federation under a name."""
        with storing(str(self.path)):
            self._database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    # ---- reading

    def fact(self, name: str) -> bytes | None:
        """A fact of the federation."""
        row = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row["value"])

    def anchor(self) -> int:
        """The version from which on everything can be made again: aggregator/storage.py."""
        known = self.fact("anchor")
        return 0 if known is None else int(known)

    def sites(self) -> dict[str, Enrolled]:
        """The registry."""
        rows = self._database.execute("SELECT site, public_key, account FROM sites ORDER BY site")
        return {
            row["site"]: Enrolled(row["site"], PublicKey.from_text(row["public_key"]), row["account"]) for row in rows
        }

    def site_rows(self) -> list[sqlite3.Row]:
        """Everything noted of the sites."""
        return self._database.execute("SELECT * FROM sites ORDER BY site").fetchall()

    def troubled(self) -> list[str]:
        """Sites of which something was refused since their newest accepted update."""
        rows = self._database.execute(
            "SELECT site FROM (SELECT site, max(at) AS at FROM refused GROUP BY site) AS newest WHERE at > coalesce("
            "(SELECT accepted_at FROM updates WHERE site = newest.site ORDER BY ordinal DESC LIMIT 1), 0) ORDER BY site"
        )
        return [row["site"] for row in rows]

    def settled(self, site: str, incarnation: bytes) -> tuple[list[int], dict[int, str]]:
        """Sequences accepted, and sequences refused with their reasons."""
        key = (site, incarnation)
        accepted = self._database.execute("SELECT sequence FROM updates WHERE site = ? AND incarnation = ?", key)
        refused = self._database.execute(
            "SELECT sequence, reason FROM refused WHERE site = ? AND incarnation = ? AND sequence IS NOT NULL", key
        )
        return [row["sequence"] for row in accepted], {row["sequence"]: row["reason"] for row in refused}

    def oldest_open(self, after: int) -> float | None:
        """When the oldest update whose ordinal is above `after` was accepted; None if there is none."""
        row = self._database.execute(
            "SELECT accepted_at FROM updates WHERE ordinal > ? ORDER BY ordinal LIMIT 1", (after,)
        ).fetchone()
        return None if row is None else float(row["accepted_at"])

    def work(self, *, through: int, after: int = 0, last: int) -> list[tuple[str, int, float]]:
        """(site, steps, training_s) of the `last` updates of each site with `after` < ordinal <= `through`, in order.

        The ordinals come from the index alone: only the rows that are asked for are read, with their payloads.
        """
        rows = self._database.execute(
            "SELECT site, steps, training_s FROM updates WHERE ordinal IN (SELECT ordinal FROM (SELECT ordinal,"
            " row_number() OVER (PARTITION BY site ORDER BY ordinal DESC) AS back FROM updates"
            " WHERE +ordinal > ? AND +ordinal <= ?) WHERE back <= ?) ORDER BY ordinal",
            (after, through, last),
        )
        return [(row["site"], row["steps"], row["training_s"]) for row in rows]

    def versions(self) -> list[VersionRow]:
        """All versions, oldest first."""
        rows = self._database.execute("SELECT * FROM versions ORDER BY version")
        return [VersionRow(**dict(row)) for row in rows]

    def rules(self) -> list[RuleRow]:
        """Every aggregation that was decided on, oldest first; the last is in force."""
        rows = self._database.execute("SELECT version, rule, at FROM rules ORDER BY id")
        return [RuleRow(**dict(row)) for row in rows]

    def folded(self, *, after: int, through: int | None = None) -> list[Folded]:
        """Accepted updates with `after` < ordinal <= `through`, in order."""
        rows = self._database.execute(
            "SELECT ordinal, site, sequence, staleness, examples, base_version FROM updates"
            " WHERE ordinal > ? AND ordinal <= ? ORDER BY ordinal",
            (after, through if through is not None else 1 << 62),
        )
        return [Folded(**dict(row)) for row in rows]

    def payload(self, ordinal: int) -> Payload:
        """The payload of an accepted update; StorageError if it was removed to make room."""
        row = self._database.execute(
            "SELECT codec, transfer, payload, removed FROM updates WHERE ordinal = ?", (ordinal,)
        ).fetchone()
        if row["removed"]:
            raise StorageError(f"The payload of update {ordinal} was removed from the journal to make room.")
        if row["transfer"] is not None:
            return self.transfers.payload(row["codec"], row["transfer"])
        return Payload(row["codec"], lambda position: iter((memoryview(row["payload"])[position:],)))

    def merged_by_site(self, *, through: int) -> Iterator[tuple[str, int, int, int]]:
        """(site, version it is merged in, ordinal, examples) of every update up to `through`, sorted; from the index.

        An update was accepted at version base + staleness, and is merged in the next.
        """
        rows = self._database.execute(
            "SELECT site, base_version + staleness + 1 AS version, ordinal, examples FROM updates"
            " INDEXED BY updates_of_sites WHERE ordinal <= ? ORDER BY site, ordinal",
            (through,),
        )
        yield from map(tuple, rows)

    def payload_bytes(self) -> int:
        """What all payloads take that are here."""
        (total,) = self._database.execute(
            "SELECT coalesce(sum(payload_bytes), 0) FROM updates WHERE NOT removed"
        ).fetchone()
        return int(total)

    def last_ordinal(self) -> int:
        """Ordinal of the newest accepted update, 0 if there is none."""
        (last,) = self._database.execute("SELECT coalesce(max(ordinal), 0) FROM updates").fetchone()
        return int(last)

    def query(self, sql: str, *values: object) -> list[sqlite3.Row]:
        """For status and reports: any reading query."""
        return self._database.execute(sql, values).fetchall()
