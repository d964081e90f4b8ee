"""One process a folder: an advisory lock that the kernel drops when its holder dies, however it dies."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from broker.errors import UsageError

LOCK = "running.pid"
PATIENCE_S = 1.0


@contextmanager
def sole_process(folder: Path, what: str) -> Iterator[None]:
    """Hold the folder; UsageError names the process that already does."""
    with (folder / LOCK).open("a+") as file:
        if not _locked(file):
            file.seek(0)
            raise UsageError(f"{what} of {folder} is running already (process {file.read().strip()}).")
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _locked(file: IO[str]) -> bool:
    """Take the lock; a `status` that asks in this moment holds it for microseconds, a service for good."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        else:
            return True


def running_process(folder: Path) -> int | None:
    """The process that holds the folder, None if none does."""
    try:
        with (folder / LOCK).open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read().strip() or 0)
    except FileNotFoundError:
        pass
    return None
