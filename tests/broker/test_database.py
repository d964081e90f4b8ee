"""Opening a database: made whole, refused whole, and upgraded in place in one transaction."""

import sqlite3
from pathlib import Path

import pytest

from broker.database import open_database
from broker.errors import StorageError

FIRST = "CREATE TABLE a (x INTEGER)"
UPGRADES = {1: "CREATE TABLE b (y INTEGER); INSERT INTO b SELECT x + 1 FROM a", 2: "ALTER TABLE b ADD COLUMN z INTEGER"}


def made(path: Path) -> Path:
    """A database of version 1 with a row in it."""
    database = open_database(path, FIRST, version=1)
    database.execute("INSERT INTO a VALUES (41)")
    database.close()
    return path


def contents(path: Path) -> tuple[int, list[str], list[tuple[int, ...]]]:
    """Version, tables, and the rows of the last table."""
    database = sqlite3.connect(path)
    try:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master ORDER BY name")]
        return version, tables, database.execute(f"SELECT * FROM {tables[-1]}").fetchall()
    finally:
        database.close()


@pytest.mark.parametrize(("version", "rows"), [(2, [(42,)]), (3, [(42, None)])])
def test_a_former_version_is_upgraded_step_by_step(tmp_path: Path, version: int, rows: list[tuple[int, ...]]) -> None:
    path = made(tmp_path / "x.db")
    open_database(path, "not used", version=version, upgrades=UPGRADES).close()
    assert contents(path) == (version, ["a", "b"], rows)
    open_database(path, "not used", version=version, upgrades=UPGRADES).close()
    assert contents(path) == (version, ["a", "b"], rows)


def test_a_new_file_is_made_at_once_and_not_upgraded(tmp_path: Path) -> None:
    open_database(tmp_path / "x.db", "CREATE TABLE c (x INTEGER)", version=3, upgrades=UPGRADES).close()
    assert contents(tmp_path / "x.db") == (3, ["c"], [])


def test_an_upgrade_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = made(tmp_path / "x.db")
    with pytest.raises(StorageError, match="cannot be opened: no such table: missing"):
        open_database(path, "", version=3, upgrades={1: UPGRADES[1], 2: "DROP TABLE missing"})
    assert contents(path) == (1, ["a"], [(41,)])


@pytest.mark.parametrize(
    ("version", "upgrades"), [(2, {}), (3, {1: UPGRADES[1]}), (3, {2: UPGRADES[2]}), (0, UPGRADES)]
)
def test_a_version_to_which_no_way_leads_is_refused(tmp_path: Path, version: int, upgrades: dict[int, str]) -> None:
    path = made(tmp_path / "x.db")
    with pytest.raises(StorageError, match=f"has schema version 1, this program needs {version}"):
        open_database(path, "", version=version, upgrades=upgrades)
    assert contents(path) == (1, ["a"], [(41,)])


def test_the_log_of_a_large_transaction_does_not_stay_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.database._LARGEST_LOG", 1 << 20)
    database = open_database(tmp_path / "x.db", "CREATE TABLE a (body BLOB)", version=1)
    log = tmp_path / "x.db-wal"
    database.execute("INSERT INTO a VALUES (zeroblob(20000000))")
    assert log.stat().st_size > 20_000_000
    for _ in range(2):  # the first begins the log anew, once all of it is in the database
        database.execute("INSERT INTO a VALUES (x'00')")
    assert log.stat().st_size <= 1 << 20
    database.close()
