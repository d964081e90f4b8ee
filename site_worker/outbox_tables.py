"""The tables of an outbox, how those of former versions become these, and which rows are no longer needed.

Rows of `payloads`, `residual` and `local` carry the number of their update. Of a number that has no update yet they are
a draft. The residual and the tensors that stay are those of the newest update; a payload is kept while it waits.
"""

from typing import Final

VERSION: Final = 3
PARAMETERS: Final = "parameters"  # the fact of how many the model has that the newest draft was of
_ROWS: Final = """
CREATE TABLE payloads (id INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, part INTEGER NOT NULL, body BLOB NOT NULL,
    UNIQUE (sequence, part));
CREATE TABLE residual (id INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, chunk INTEGER NOT NULL, body BLOB NOT NULL,
    UNIQUE (sequence, chunk));
CREATE TABLE local (id INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, chunk INTEGER NOT NULL, body BLOB NOT NULL,
    UNIQUE (sequence, chunk));
"""
SCHEMA: Final = f"""
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE updates (
    sequence INTEGER PRIMARY KEY, base_version INTEGER NOT NULL, base_digest BLOB NOT NULL,
    examples INTEGER NOT NULL, steps INTEGER NOT NULL, held_out INTEGER NOT NULL, metrics TEXT NOT NULL,
    codec TEXT NOT NULL, payload_bytes INTEGER NOT NULL, payload_digest BLOB NOT NULL,
    made_at REAL NOT NULL, training_s REAL NOT NULL,
    published INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL DEFAULT 'waiting', reason TEXT, settled_at REAL,
    sent INTEGER NOT NULL DEFAULT 0, error REAL, choice TEXT, backlog REAL, took_s REAL);
CREATE INDEX updates_by_state ON updates (state);
CREATE TABLE activity (id INTEGER PRIMARY KEY CHECK (id = 1), state TEXT NOT NULL, version INTEGER,
    detail TEXT NOT NULL, since REAL NOT NULL);
{_ROWS}"""
_ADDED: Final = """
ALTER TABLE updates ADD COLUMN sent INTEGER NOT NULL DEFAULT 0;
ALTER TABLE updates ADD COLUMN error REAL;
ALTER TABLE updates ADD COLUMN choice TEXT;
ALTER TABLE updates ADD COLUMN backlog REAL;
ALTER TABLE updates ADD COLUMN took_s REAL;
ALTER TABLE payloads RENAME TO former_payloads;
ALTER TABLE residual RENAME TO former_residual;
ALTER TABLE local RENAME TO former_local;
"""
_TAKEN_OVER: Final = """
INSERT INTO payloads SELECT NULL, sequence, part, body FROM former_payloads;
INSERT INTO residual
    SELECT NULL, (SELECT coalesce(max(sequence), 0) FROM updates), chunk, body FROM former_residual;
INSERT INTO local SELECT NULL, (SELECT coalesce(max(sequence), 0) FROM updates), chunk, body FROM former_local;
DROP TABLE former_payloads;
DROP TABLE former_residual;
DROP TABLE former_local
"""
UPGRADES: Final = {
    1: "CREATE TABLE local (chunk INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    2: "".join((_ADDED, _ROWS, _TAKEN_OVER)),
}

# Each deletes a few rows at most, so that nobody waits long for its transaction; to be repeated while it finds some.
DRAFTS: Final = (
    """DELETE FROM payloads WHERE id IN (
    SELECT id FROM payloads WHERE sequence > (SELECT coalesce(max(sequence), 0) FROM updates) LIMIT 4)""",
    """DELETE FROM residual WHERE id IN (
    SELECT id FROM residual WHERE sequence > (SELECT coalesce(max(sequence), 0) FROM updates) LIMIT 4)""",
    """DELETE FROM local WHERE id IN (
    SELECT id FROM local WHERE sequence > (SELECT coalesce(max(sequence), 0) FROM updates) LIMIT 4)""",
)
FORMER: Final = (
    """DELETE FROM residual WHERE id IN (
    SELECT id FROM residual WHERE sequence < (SELECT coalesce(max(sequence), 0) FROM updates) LIMIT 4)""",
    """DELETE FROM local WHERE id IN (
    SELECT id FROM local WHERE sequence < (SELECT coalesce(max(sequence), 0) FROM updates) LIMIT 4)""",
)
SETTLED: Final = (
    """DELETE FROM payloads WHERE id IN (
    SELECT id FROM payloads WHERE sequence <= (SELECT coalesce(max(sequence), 0) FROM updates)
    AND sequence NOT IN (SELECT sequence FROM updates WHERE state = 'waiting') LIMIT 4)""",
)
INSERT: Final = {
    "payloads": "INSERT OR REPLACE INTO payloads (sequence, part, body) VALUES (?,?,?)",
    "residual": "INSERT OR REPLACE INTO residual (sequence, chunk, body) VALUES (?,?,?)",
    "local": "INSERT OR REPLACE INTO local (sequence, chunk, body) VALUES (?,?,?)",
}
