"""Journals of federations that never ran, written row by row: small ones to add up by hand, and large ones."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aggregator.journal import Journal
from aggregator.opening import initialise, rule_text
from aggregator.settings import Aggregation, Folder
from broker.weights import Layout

FOUNDED = 1_700_000_000.0
PARAMETERS = 250  # 1000 bytes as float32


@dataclass(frozen=True)
class Update:
    """An accepted update, `at` seconds after the founding."""

    site: str
    base: int
    staleness: int
    at: float
    size: int = 10
    codec: str = "int8"
    metrics: dict[str, float] | None = None
    held_out: int = 100


def found(path: Path, *, sites: Iterable[str] = (), strategy: str = "patient") -> Folder:
    """A federation `trial` in which nothing has happened; `sites` are enrolled and have said hello."""
    path.mkdir(parents=True, exist_ok=True)
    folder = Folder(path)
    text = f'federation = "trial"\ntask = "tiny"\n[aggregation]\nstrategy = "{strategy}"\n'
    folder.settings_file.write_text(text)
    with closing(Journal(folder.journal_file)) as journal:
        model = np.zeros(PARAMETERS, dtype=np.float32)
        rule = rule_text(Aggregation(strategy=strategy))
        initialise(journal, folder, Layout.of({"weight": model}), model, rule, at=FOUNDED)
    with writing(folder) as rows:
        for site in sites:
            rows.add("sites", site=site, public_key="ed25519:" + site, added_at=FOUNDED, last_seen=FOUNDED, present=1)
    return folder


class Rows:
    """Adds rows to an open journal."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database, self._ordinal = database, 0

    def add(self, table: str, **columns: Any) -> None:
        marks = ",".join("?" * len(columns))
        self._database.execute(f"INSERT INTO {table} ({','.join(columns)}) VALUES ({marks})", tuple(columns.values()))

    def update(self, one: Update) -> None:
        self._ordinal += 1
        self.add(
            "updates", ordinal=self._ordinal, site=one.site, incarnation=b"i", sequence=self._ordinal,
            base_version=one.base, staleness=one.staleness, weight=1.0, examples=100, steps=5, held_out=one.held_out,
            metrics=json.dumps(one.metrics or {}), norm=1.0, codec=one.codec, payload_digest=b"d", made_at=FOUNDED,
            training_s=1.0, accepted_at=FOUNDED + one.at, payload_bytes=one.size, payload=bytes(one.size),
        )  # fmt: skip

    def version(self, number: int, *, at: float) -> None:
        """A version of all updates so far."""
        self.add(
            "versions", version=number, digest=b"v%d" % number, through_ordinal=self._ordinal, updates=1,
            reason="buffer full", rule="{}", at=FOUNDED + at,
        )  # fmt: skip

    def presence(self, site: str, *, at: float, present: bool) -> None:
        self.add("presence", at=FOUNDED + at, site=site, present=present)
        self._database.execute("UPDATE sites SET present = ? WHERE site = ?", (present, site))

    def refusal(self, site: str, reason: str, *, at: float, size: int = 0) -> None:
        self.add("refused", site=site, reason=reason, bytes=size, at=FOUNDED + at)

    def sent(self, version: int, base: int, *, size: int, codec: str = "float32") -> None:
        self.add(
            "publications", version=version, base=base, digest=b"", base_digest=b"", codec=codec, payload_bytes=size,
            error=0.0, at=FOUNDED,
        )  # fmt: skip

    def switch(self, after: int, rule: Aggregation, *, at: float) -> None:
        self.add("rules", version=after, rule=rule_text(rule), at=FOUNDED + at)


@contextmanager
def writing(folder: Folder) -> Iterator[Rows]:
    """One transaction on the journal."""
    with closing(sqlite3.connect(folder.journal_file)) as database:
        yield Rows(database)
        database.commit()


def small(path: Path, *, site: str = "KY", reason: str = "its delta's norm is too large") -> Folder:
    """NY sends three updates, MN one stale one, KY is away; a switch, a refusal, a metric that is not a number."""
    folder = found(path, sites=("MN", "NY", site))
    with writing(folder) as rows:
        for name in ("MN", "NY", site):
            rows.presence(name, at=1, present=name != site)
        rows.update(Update("NY", 0, 0, 10, size=100, metrics={"auc": 0.5, "brier": 0.25}))
        rows.version(1, at=11)
        rows.presence("MN", at=12, present=False)
        rows.presence("MN", at=20, present=True)
        rows.update(Update("NY", 1, 0, 21, size=100, metrics={"auc": 0.7, "brier": 0.2}))
        rows.version(2, at=22)
        rows.update(
            Update("MN", 0, 2, 30, size=500, codec="lowrank", metrics={"auc": 0.6, "brier": 0.24}, held_out=300)
        )
        rows.update(Update("NY", 2, 0, 31, size=100, metrics={"auc": float("nan"), "brier": 0.18}))
        rows.version(3, at=32)
        rows.update(Update("NY", 3, 0, 40, size=100, metrics={"auc": 0.8, "brier": 0.15}))
        rows.refusal(site, reason, at=25, size=2048)
        rows.sent(0, -1, size=1000)
        rows.sent(1, 0, size=10, codec="int8")
        rows.sent(2, 1, size=10, codec="int8")
        rows.switch(2, Aggregation(strategy="fedbuff", buffer_size=2), at=24)
    return folder


def many(path: Path, *, sites: int, each: int, metrics: int = 2) -> Folder:
    """So many sites with so many updates each; a version for every 20, refusals and absences now and then."""
    names = [f"hospital-{number:03}" for number in range(sites)]
    folder, day = found(path, sites=names), 86_400.0
    step = 90 * day / (sites * each)
    with writing(folder) as rows:
        for number in range(sites * each):
            name, version, at = names[number * 7 % sites], number // 20, number * step
            stale = min(version, number * number % 31)
            values = {f"metric{m}": 0.5 + (number * 13 + m * 7) % 101 / 300 for m in range(metrics)}
            rows.update(Update(name, version - stale, stale, at, size=1, metrics=values))
            if number % 20 == 19:
                rows.version(version + 1, at=at)
                rows.sent(version + 1, version, size=100 + version % 7, codec="int8-coarse")
            if number % 40 == 0:
                rows.presence(name, at=at, present=number % 80 > 0)
            if number % 50 == 0:
                rows.refusal(name, f"the delta's norm {number / 7:.3f} is over the limit", at=at, size=9)
    return folder
