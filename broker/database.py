"""SQLite as both sides use it: write-ahead log, full synchronisation, one writer, plain column names.

Opening never creates a schema half: it is made in one transaction. `sqlite3.OperationalError` for a full disk becomes
StorageError, so that a service can wait for room and then do the same transaction again.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from broker.errors import StorageError, UsageError

_BUSY_S = 30.0
_LARGEST_LOG = 64 << 20  # bytes of the write-ahead log that a large transaction leaves on the disk


def open_database(
    path: Path | str, schema: str, *, version: int, upgrades: Mapping[int, str] | None = None
) -> sqlite3.Connection:
    """Open `path` (":memory:" too), creating the schema if it is new; StorageError if it is damaged or of another one.

    `upgrades` maps a former version to the statements that make the next one of it; a file of a former version is
    upgraded in place, in one transaction. The connection is in autocommit mode: transactions are explicit.
    """
    try:
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        database = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            _prepare(database, path, schema, version, upgrades or {})
        except BaseException:
            database.close()
            raise
    except (sqlite3.Error, OSError) as error:
        raise StorageError(f"{path} cannot be opened: {error}.") from error
    return database


def _prepare(
    database: sqlite3.Connection, path: Path | str, schema: str, version: int, upgrades: Mapping[int, str]
) -> None:
    database.row_factory = sqlite3.Row
    # A page of 16 KiB holds a fourth of the overflow pages that a payload of megabytes would have by default.
    pragmas = ("page_size=16384", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")
    for pragma in (*pragmas, f"journal_size_limit={_LARGEST_LOG}"):
        database.execute(f"PRAGMA {pragma}")
    (found,) = database.execute("PRAGMA user_version").fetchone()
    if found == version:
        return
    steps = [upgrades.get(former) for former in range(found, version)] if found else [schema]
    if found > version or None in steps:
        raise StorageError(f"{path} has schema version {found}, this program needs {version}.")
    script = "; ".join(step for step in steps if step)
    database.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version={version}; COMMIT;")


def open_readonly(path: Path) -> sqlite3.Connection:
    """Open an existing database to look at it while its owner runs; UsageError if there is none."""
    if not path.is_file():
        raise UsageError(f"There is no {path}; has this folder been initialised?")
    try:
        database = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S, isolation_level=None
        )
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise StorageError(f"{path} cannot be read: {error}.") from error
    if not tables:  # its owner has made the file and is about to fill it
        database.close()
        raise UsageError(f"{path} is empty; has this folder been initialised?")
    database.row_factory = sqlite3.Row
    return database


@contextmanager
def storing(what: str) -> Iterator[None]:
    """Turn SQLite's and the system's complaints about the disk into StorageError."""
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.DatabaseError, OSError) as error:
        if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
            raise
        raise StorageError(f"{what} could not be written: {error}.") from error
