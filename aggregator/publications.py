"""What has been published of each version: a keyframe (the model in full), a difference to an earlier one, or both.

With a lossy codec for models, what sites hold is not the aggregator's own model but what all differences so far add up
to; the next difference carries what this one leaves out. A row is journaled before its first part is written to the
stream, so that a version never has two published models, and says how far it has come, so that a restart goes on there.
"""

import sqlite3
from dataclasses import dataclass
from typing import Final

from broker.database import storing
from broker.messages import part_count

NOTHING: Final = -1  # the base of a keyframe
SCHEMA: Final = """
CREATE TABLE publications (
    version INTEGER NOT NULL, base INTEGER NOT NULL, digest BLOB NOT NULL, base_digest BLOB NOT NULL,
    codec TEXT NOT NULL, payload_bytes INTEGER NOT NULL, error REAL NOT NULL, at REAL NOT NULL,
    confirmed INTEGER NOT NULL DEFAULT 0, offset INTEGER, PRIMARY KEY (version, base)) WITHOUT ROWID
"""


@dataclass(frozen=True)
class Published:
    """A model as sites get it: of `version`, from nothing or from `base`; `digest` is that of what they then hold.

    `error` is what the codec left out, relative to the difference. `confirmed` parts are in the stream; `offset` is
    that of part 0, None until it has been read back, and again once the stream has lost it.
    """

    version: int
    base: int
    digest: bytes
    base_digest: bytes
    codec: str
    payload_bytes: int
    error: float
    at: float
    confirmed: int = 0
    offset: int | None = None

    @property
    def parts(self) -> int:
        """How many it has."""
        return part_count(self.payload_bytes)

    @property
    def keyframe(self) -> bool:
        """Whether it is a model in full."""
        return self.base == NOTHING

    @property
    def there(self) -> bool:
        """Whether all of it is in the stream, and known where."""
        return self.offset is not None and self.confirmed == self.parts

    @property
    def name(self) -> tuple[int, int]:
        """What tells it from all others."""
        return self.version, self.base


class Publications:
    """See the module's docstring. Methods that write run inside the caller's transaction."""

    def __init__(self, database: sqlite3.Connection, path: str) -> None:
        self._database, self._path = database, path

    def add(self, row: Published) -> None:
        """Add one, in place of one that was lost."""
        with storing(self._path):
            self._database.execute(
                "INSERT OR REPLACE INTO publications VALUES (?,?,?,?,?,?,?,?,?,?)",
                (row.version, row.base, row.digest, row.base_digest, row.codec, row.payload_bytes, row.error, row.at,
                 row.confirmed, row.offset),
            )  # fmt: skip

    def note(self, row: Published) -> None:
        """Note how far it has come."""
        with storing(self._path):
            self._database.execute(
                "UPDATE publications SET confirmed = ?, offset = ? WHERE version = ? AND base = ?",
                (row.confirmed, row.offset, row.version, row.base),
            )

    def lose(self) -> None:
        """The stream has lost them all."""
        with storing(self._path):
            self._database.execute("UPDATE publications SET offset = NULL, confirmed = 0")

    def rows(self) -> list[Published]:
        """All of them; of a version the difference before the keyframe."""
        rows = self._database.execute("SELECT * FROM publications ORDER BY version, base DESC")
        return [Published(**dict(row)) for row in rows]
