"""One process a folder: an advisory lock that the kernel drops when its holder dies, however it dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.errors import UsageError

LOCK = "running.pid"


@contextmanager
def sole_process(folder: Path, what: str) -> Iterator[None]:
    """Hold the folder; UsageError names the process that already does."""
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UsageError(f"{what} of {folder} is running already (process {file.read().strip()}).") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


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
