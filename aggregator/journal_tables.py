"""The tables of a journal, and how those of former versions become these."""

from typing import Final

from aggregator.publications import SCHEMA as PUBLICATIONS
from aggregator.transfers import SCHEMA as TRANSFERS

VERSION: Final = 3
_TABLES: Final = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE sites (
    site TEXT PRIMARY KEY, public_key TEXT NOT NULL, account TEXT, added_at REAL NOT NULL,
    incarnation BLOB, answers INTEGER NOT NULL DEFAULT 0, settled INTEGER NOT NULL DEFAULT 0,
    examples INTEGER, statistics TEXT, last_seen REAL, present INTEGER, ready INTEGER) WITHOUT ROWID;
CREATE TABLE updates (
    ordinal INTEGER PRIMARY KEY,
    site TEXT NOT NULL, incarnation BLOB NOT NULL, sequence INTEGER NOT NULL,
    base_version INTEGER NOT NULL, staleness INTEGER NOT NULL, weight REAL NOT NULL,
    examples INTEGER NOT NULL, steps INTEGER NOT NULL, held_out INTEGER NOT NULL, metrics TEXT NOT NULL,
    norm REAL NOT NULL, codec TEXT NOT NULL, payload_digest BLOB NOT NULL,
    made_at REAL NOT NULL, training_s REAL NOT NULL, accepted_at REAL NOT NULL,
    transfer INTEGER, payload_bytes INTEGER NOT NULL DEFAULT 0, error REAL NOT NULL DEFAULT 0,
    removed INTEGER NOT NULL DEFAULT 0, payload BLOB NOT NULL,
    UNIQUE (site, incarnation, sequence));
CREATE TABLE refused (
    id INTEGER PRIMARY KEY AUTOINCREMENT, site TEXT NOT NULL, incarnation BLOB, sequence INTEGER,
    reason TEXT NOT NULL, bytes INTEGER NOT NULL, at REAL NOT NULL,
    UNIQUE (site, incarnation, sequence));
CREATE TABLE versions (
    version INTEGER PRIMARY KEY, digest BLOB NOT NULL, through_ordinal INTEGER NOT NULL,
    updates INTEGER NOT NULL, reason TEXT NOT NULL, rule TEXT NOT NULL, at REAL NOT NULL, state BLOB);
CREATE TABLE presence (at REAL NOT NULL, site TEXT NOT NULL, present INTEGER NOT NULL);
CREATE VIEW merged AS SELECT site, sequence, base_version, staleness, weight, examples, accepted_at, ordinal,
    (SELECT min(version) FROM versions WHERE through_ordinal >= ordinal) AS version FROM updates;
CREATE TABLE rules (id INTEGER PRIMARY KEY, version INTEGER NOT NULL, rule TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX updates_of_sites
    ON updates (site, ordinal, base_version, staleness, examples, payload_bytes, training_s, accepted_at);
CREATE INDEX updates_by_room ON updates (removed, payload_bytes)
"""
SCHEMA: Final = ";".join((_TABLES, TRANSFERS, PUBLICATIONS))
UPGRADES: Final = {
    1: """
ALTER TABLE versions ADD COLUMN state BLOB;
CREATE TABLE rules (id INTEGER PRIMARY KEY, version INTEGER NOT NULL, rule TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX updates_of_sites ON updates (site, ordinal, base_version, staleness, examples);
INSERT INTO rules (version, rule, at) SELECT version, rule, at FROM versions ORDER BY version DESC LIMIT 1
""",
    2: ";".join(
        (
            """
ALTER TABLE updates ADD COLUMN transfer INTEGER;
ALTER TABLE updates ADD COLUMN payload_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE updates ADD COLUMN error REAL NOT NULL DEFAULT 0;
ALTER TABLE updates ADD COLUMN removed INTEGER NOT NULL DEFAULT 0;
UPDATE updates SET payload_bytes = length(payload);
ALTER TABLE parts RENAME TO former_parts""",
            TRANSFERS,
            """
INSERT INTO unfinished (site, incarnation, sequence) SELECT DISTINCT site, incarnation, sequence FROM former_parts;
INSERT INTO parts (transfer, part, body) SELECT transfer, part, body FROM former_parts
    JOIN unfinished USING (site, incarnation, sequence);
DROP TABLE former_parts;
DROP INDEX updates_of_sites;
CREATE INDEX updates_of_sites
    ON updates (site, ordinal, base_version, staleness, examples, payload_bytes, training_s, accepted_at);
CREATE INDEX updates_by_room ON updates (removed, payload_bytes)
""",
            PUBLICATIONS,
        )
    ),
}
