"""The account of a federation: every update that any site ever made, held against the journal. Computed, never assumed.

Made means: it has a row in its site's outbox, which is written before anything is published and never deleted. Lost
means: the site no longer keeps it and the journal does not have it. Counted twice means: the journal has it in more
than one place, or a version's weights are not what folding its updates once gives.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from broker.database import open_readonly
from deploy.history import Ledger

Key = tuple[str, bytes, int]


@dataclass(frozen=True)
class Books:
    """What both sides have written: every made update, whether its site still keeps it, and the journal's entries."""

    made: dict[Key, bool]
    accepted: tuple[Key, ...]
    refused: tuple[Key, ...]

    def balance(self) -> Ledger:
        """The ledger. A doubled update is one with more than one entry, whatever the entries say."""
        entries = Counter((*self.accepted, *self.refused))
        waiting = [key for key, kept in self.made.items() if key not in entries and kept]
        lost = [key for key, kept in self.made.items() if key not in entries and not kept]
        return Ledger(
            sent=len(self.made.keys() | entries.keys()),
            accepted=len(set(self.accepted)),
            refused=len(set(self.refused)),
            waiting=len(waiting),
            lost=len(lost),
            doubled=sum(count - 1 for count in entries.values()),
        )


def read_books(journal: Path, outboxes: Iterable[tuple[str, Path]]) -> Books:
    """The books of a federation: its journal, and its sites' (name, outbox) files; without a file nothing was made."""
    made: dict[Key, bool] = {}
    for site, path in outboxes:
        if path.is_file():
            made.update(_made(site, path))
    database = open_readonly(journal)
    try:
        accepted = database.execute("SELECT site, incarnation, sequence FROM updates").fetchall()
        refused = database.execute(
            "SELECT site, incarnation, sequence FROM refused WHERE sequence IS NOT NULL"
        ).fetchall()
    finally:
        database.close()
    return Books(made, tuple(map(tuple, accepted)), tuple(map(tuple, refused)))


def _made(site: str, path: Path) -> dict[Key, bool]:
    """Sequences ever given out, gaps included, and whether the payload is still there."""
    database = open_readonly(path)
    try:
        row = database.execute("SELECT value FROM facts WHERE name = 'incarnation'").fetchone()
        if row is None:
            return {}
        (last,) = database.execute("SELECT coalesce(max(sequence), 0) FROM updates").fetchone()
        kept = {row["sequence"] for row in database.execute("SELECT DISTINCT sequence FROM payloads")}
    finally:
        database.close()
    return {(site, bytes(row["value"]), sequence): sequence in kept for sequence in range(1, last + 1)}
